"""VanillaNet in MMDetection's own detectors: `backbone` and the neck's `in_channels` change."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

import mmvanilla  # noqa: F401  # registers VanillaNet
from tests.checks import swaps
from tests.helpers import CONFIGS

pytestmark = pytest.mark.toolbox("mmdet")


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmdet")


def plugged(base: str) -> Config:
    """A model of MMDetection's with VanillaNet as its backbone, and nothing else changed."""
    levels = (1, 2, 3) if "rtmdet" in base else (0, 1, 2, 3)
    model = swaps.swapped(swaps.load("mmdet", base), levels).model
    if "rtmdet" in base:  # even narrower
        model.neck.out_channels = 16
        model.bbox_head.update(in_channels=16, feat_channels=16)
        model.data_preprocessor.batch_augments = None
    return model


DETECTORS = {
    "mask": ("_base_/models/mask-rcnn_r50_fpn.py", True, "loss_mask"),
    "cascade": ("_base_/models/cascade-rcnn_r50_fpn.py", False, "s2.loss_cls"),
    "fcos": ("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", False, "loss_centerness"),
    "retinanet": ("_base_/models/retinanet_r50_fpn.py", False, "loss_bbox"),
    "rtmdet": ("rtmdet/rtmdet_tiny_8xb32-300e_coco.py", False, "loss_bbox"),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_only_backbone_and_in_channels_change(name):
    from mmdet.testing import demo_mm_inputs

    base, with_mask, loss = DETECTORS[name]
    model = MODELS.build(plugged(base))
    model.init_weights()
    batch = demo_mm_inputs(2, [(3, 128, 128)] * 2, num_classes=3, with_mask=with_mask)
    losses = model(**model.data_preprocessor(batch, True), mode="loss")
    total, logged = model.parse_losses(losses)
    assert loss in logged and torch.isfinite(total) and total > 0
    total.backward()
    for key, param in model.backbone.named_parameters():
        assert param.grad is not None and param.grad.isfinite().all(), key
    model.eval()
    with torch.no_grad():
        found = model(**model.data_preprocessor(batch, False), mode="predict")
    assert [sample.pred_instances.bboxes.isfinite().all() for sample in found] == [True, True]


@pytest.mark.parametrize(
    ("name", "lr", "milestones"),
    [
        ("retinanet_vanillanet.py", 8e-5, [10, 11]),
        ("maskrcnn_vanillanet.py", 1.3e-4, [10, 12]),
    ],
)
def test_the_authors_recipe(name, lr, milestones):
    cfg = Config.fromfile(CONFIGS / name)
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.arch, backbone.act_num) == ("VanillaNet", "13", 4)
    assert backbone.norm_cfg.type == "SyncBN" and backbone.norm_cfg.eps == 1e-6
    with torch.device("meta"):
        full = MODELS.build(dict(backbone, init_cfg=None))
    assert cfg.model.neck.in_channels == list(full.out_channels) == [512, 1024, 2048, 4096]
    assert cfg.model.neck.get("start_level", 0) == (1 if "retina" in name else 0)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", lr, 0.05)
    assert tuple(optimizer.betas) == (0.9, 0.999)
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.start_factor, warm_up.end, warm_up.by_epoch) == (0.001, 500, False)
    assert (steps.milestones, steps.end, steps.by_epoch) == (milestones, 12, True)
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.train_dataloader.batch_size == 4 and cfg.auto_scale_lr.base_batch_size == 32
    (resize,) = [
        step
        for step in cfg.train_dataloader.dataset.pipeline
        if step.type.startswith("RandomChoiceResize")
    ]
    assert [tuple(scale) for scale in resize.scales] == [(1333, s) for s in range(480, 1025, 32)]
    # Layer decay of the whole detector, at a small width: lr × 0.6^(7 − id).
    cfg.model.backbone.update(width_mult=1 / 64, init_cfg=None)
    cfg.model.neck.in_channels = list(swaps.CHANNELS)
    model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    found = {id(param): group["lr"] for group in groups for param in group["params"]}
    layers = {"stem.": 0, "blocks.0.": 1, "blocks.1.": 1, "blocks.9.": 5, "blocks.10.": 6}
    for prefix, layer in layers.items():
        for key, param in model.backbone.named_parameters():
            if key.startswith(prefix):
                assert found[id(param)] == pytest.approx(lr * 0.6 ** (7 - layer)), key
    assert {found[id(param)] for param in model.neck.parameters()} == {lr}
