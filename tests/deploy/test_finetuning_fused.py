"""Fine-tuning from fused weights: half the layers, no norms in the backbone, no λ."""

import pytest
import torch
from mmengine.hooks import Hook

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model
from mmvanilla.apis.runners import build_train_runner, release
from mmvanilla.datasets.shapes import make_shapes
from mmvanilla.deploy.fuse_checkpoint import fuse_checkpoint
from tests.helpers import CONFIGS

FEW = {
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "train_cfg.max_epochs": 3,
    "train_cfg.val_interval": 9,
    "param_scheduler": None,
    "val_dataloader.num_workers": 0,
    "val_dataloader.persistent_workers": False,
    "randomness.seed": 0,
}


class Losses(Hook):
    """Collects the loss of each step."""

    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(float(outputs["loss"]))


@pytest.mark.exhaustive
@pytest.mark.toolbox("mmdet")
def test_a_fused_detector_learns_with_layer_decay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shapes("data/shapes", layouts=("coco",), num_train=8, num_val=2, image_size=64)
    cfg = load_config(str(CONFIGS / "shapes" / "maskrcnn_vanillanet_shapes.py"))
    torch.manual_seed(0)
    trained = build_model(cfg)
    trained.init_weights()
    torch.save(dict(state_dict=trained.state_dict()), "trained.pth")
    fuse_checkpoint(cfg.filename, "trained.pth", "fused.pth", sizes=[(64, 64)])

    options = {
        **FEW,
        "load_from": "fused.pth",
        "optim_wrapper.constructor": "LayerDecayOptimWrapperConstructor",
        "optim_wrapper.paramwise_cfg": dict(_delete_=True, decay_rate=0.8),
    }
    runner = build_train_runner("fused.py", work_dir="out", cfg_options=options)
    losses = Losses()
    runner.register_hook(losses)
    runner.train()
    release(runner)

    assert runner.model.backbone.deploy
    assert not [m for m in runner.model.backbone.modules() if "Norm" in type(m).__name__]
    assert len(losses.values) == 6 and sum(losses.values[-2:]) < 0.9 * sum(losses.values[:2])
    before, after = (
        torch.load(path, weights_only=False)["state_dict"]
        for path in ("fused.pth", "out/epoch_3.pth")
    )
    names = [key for key in before if "backbone" in key]
    assert names and not [key for key in names if torch.equal(before[key], after[key])]
    rates = {
        id(p): g["lr"] for g in runner.optim_wrapper.optimizer.param_groups for p in g["params"]
    }
    parameters = dict(runner.model.named_parameters())
    for name, rate in {
        "backbone.stem.conv.weight": 1.5e-3 * 0.8**6,
        "backbone.blocks.4.conv.bias": 1.5e-3 * 0.8,
        "rpn_head.rpn_cls.weight": 1.5e-3,
    }.items():
        assert rates[id(parameters[name])] == pytest.approx(rate)
