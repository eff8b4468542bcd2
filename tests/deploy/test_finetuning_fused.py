"""Fine-tuning from fused weights: half the layers, no norms in the backbone, no λ."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmvanilla import DeepTrainingHook
from mmvanilla.apis.config import load_config
from mmvanilla.apis.deploy_config import deploy_config
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
    sizes = dict(sizes=[(64, 64)], measured_size=(32, 32))
    fuse_checkpoint(cfg.filename, "trained.pth", "fused.pth", **sizes)

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
    moved = [
        key for key in before if "backbone" in key and not torch.equal(before[key], after[key])
    ]
    assert len(moved) == len([key for key in before if "backbone" in key]) > 0
    rates = {
        name: group["lr"]
        for group in runner.optim_wrapper.optimizer.param_groups
        for name, parameter in runner.model.named_parameters()
        if any(parameter is each for each in group["params"])
    }
    assert rates["backbone.stem.conv.weight"] == pytest.approx(1.5e-3 * 0.8**6)
    assert rates["backbone.blocks.4.conv.bias"] == pytest.approx(1.5e-3 * 0.8)
    assert rates["rpn_head.rpn_cls.weight"] == pytest.approx(1.5e-3)


@pytest.mark.parametrize(
    "kind", ["DeepTrainingHook", "mmengine.DeepTrainingHook", DeepTrainingHook]
)
@pytest.mark.parametrize("place", ["default_hooks", "custom_hooks"])
def test_the_config_of_a_fused_model_raises_no_lambda(kind, place):
    hook, other = dict(type=kind, decay_epochs=3), dict(type="EMAHook")
    hooks = dict(deep=hook, ema=other) if place == "default_hooks" else [hook, other]
    model = dict(type="VanillaNet", arch="5")
    deployed = deploy_config(Config({"model": model, place: hooks}))
    assert deployed[place] == (dict(ema=other) if place == "default_hooks" else [other])
