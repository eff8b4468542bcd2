"""UPerNet with VanillaNet: the shipped configs at a small size, plain and augmented."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from mmvanilla.apis.config import load_config
from mmvanilla.datasets.shapes import SCENE_CLASSES, make_shapes
from tests.checks import swaps
from tests.helpers import CONFIGS

pytestmark = pytest.mark.toolbox("mmseg")

NUM_IMAGES = 4


def load(name: str) -> Config:
    cfg = load_config(str(CONFIGS / name))
    init_default_scope("mmseg")
    return cfg


def narrow(cfg: Config) -> Config:
    """The same model 1/64 as wide, without weights to download."""
    cfg.model.backbone.update(width_mult=1 / 64, init_cfg=None)
    cfg.model.decode_head.update(in_channels=[8, 16, 32, 64], channels=8)
    cfg.model.auxiliary_head.update(in_channels=32, channels=8)
    return cfg


@pytest.mark.parametrize("name", ["upernet_vanillanet.py", "upernet_vanillanet6.py"])
def test_ade20k_configs(name):
    cfg = load(name)
    backbone, head, aux = (cfg.model[key] for key in ("backbone", "decode_head", "auxiliary_head"))
    with torch.device("meta"):
        full = MODELS.build(dict(backbone, init_cfg=None))
    assert list(full.out_channels) == head.in_channels == [512, 1024, 2048, 4096]
    assert full.out_channels[aux.in_index] == aux.in_channels
    assert head.num_classes == aux.num_classes == 150
    arch = "13" if name == "upernet_vanillanet.py" else "6"
    weights = dict(type="Pretrained", checkpoint=f"vanillanet://{arch}", prefix="backbone.")
    assert (backbone.arch, backbone.init_cfg) == (arch, weights)
    assert cfg.model.data_preprocessor.size == cfg.model.test_cfg.crop_size == (512, 512)
    # MMSegmentation's ConvNeXt schedule: what its own config says, apart from layer decay.
    theirs = swaps.load("mmseg", "convnext/convnext-base_upernet_8xb2-amp-160k_ade20k-512x512.py")
    for key in ("param_scheduler", "train_cfg", "train_dataloader", "test_dataloader"):
        assert cfg[key] == theirs[key]
    assert cfg.optim_wrapper.optimizer == theirs.optim_wrapper.optimizer
    assert cfg.optim_wrapper.type == theirs.optim_wrapper.type == "AmpOptimWrapper"
    assert "convnext" not in cfg.pretty_text.lower()


@pytest.fixture
def shapes_cfg(tmp_path) -> Config:
    make_shapes(tmp_path, ["ade20k"], num_train=NUM_IMAGES, num_val=NUM_IMAGES, image_size=64)
    cfg = narrow(load("shapes/upernet_vanillanet_shapes.py"))
    assert cfg.metainfo.classes == ("background", *SCENE_CLASSES)
    assert cfg.model.decode_head.num_classes == len(cfg.metainfo.classes)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        cfg[name].dataset.data_root = str(tmp_path / "ade20k")
        cfg[name].update(num_workers=0, persistent_workers=False, batch_size=1)
    cfg.train_dataloader.batch_size = 2
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.train_cfg.update(max_iters=4, val_interval=4)
    cfg.custom_hooks[0].decay_iters = 2
    cfg.default_hooks.checkpoint.interval = 4
    cfg.work_dir = str(tmp_path)
    return cfg


def test_shapes_config_trains_and_tests_with_tta(shapes_cfg):
    metrics = Runner.from_cfg(shapes_cfg).train()
    weights = Path(shapes_cfg.work_dir, "iter_4.pth")
    assert weights.is_file()

    def tested(**changes) -> dict[str, float]:
        cfg = copy.deepcopy(shapes_cfg)
        for key, value in dict(changes, load_from=str(weights)).items():
            cfg[key] = value  # update() would merge the models
        runner = Runner.from_cfg(cfg)
        assert len(runner.test_dataloader.dataset) == NUM_IMAGES
        return runner.test()

    plain = tested()
    assert 0 < plain["mIoU"] <= 100
    assert metrics is not None
    fused = copy.deepcopy(shapes_cfg.model)
    fused.backbone.deploy = True
    assert tested(model=fused)["mIoU"] == pytest.approx(plain["mIoU"], abs=0.05)
    # Flip and three scales: six views an image.
    dataloader = copy.deepcopy(shapes_cfg.test_dataloader)
    dataloader.dataset.pipeline = shapes_cfg.tta_pipeline
    wrapper = dict(shapes_cfg.tta_model, module=shapes_cfg.model)
    averaged = tested(model=wrapper, test_dataloader=dataloader)
    assert 0 < averaged["mIoU"] <= 100
