"""The classification configs against the authors' recipes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, RUNNERS, init_default_scope
from torch import nn
from torch.nn import functional

from mmvanilla import SqrtLRRunner
from tests.fashion_files import write_fashion_mnist
from tests.helpers import CONFIGS, release

pytestmark = pytest.mark.toolbox("mmpretrain")

# arch: learning rate, weight decay, mixup, layer decay over this many layers (published recipes).
RECIPES = {
    "5": (3.5e-3, 0.35, 0.1, None),
    "6": (4.8e-3, 0.32, 0.15, 4),
    "7": (4.7e-3, 0.35, 0.4, 5),
    "8": (3.5e-3, 0.3, 0.4, None),
    "9": (3.5e-3, 0.3, 0.4, None),
    "10": (3.5e-3, 0.25, 0.4, None),
}
TESTING = {"11": "11", "12": "12", "13": "13", "13x1.5": "13-1.5x", "13x1.5_ada": "13-1.5x-ada"}


def load(name: str) -> Config:
    cfg = Config.fromfile(CONFIGS / "imagenet" / f"vanillanet{name}_in1k.py")
    init_default_scope("mmpretrain")
    return cfg


def build(cfg: Config, **backbone) -> nn.Module:
    cfg.model.backbone.update(backbone)
    if "width_mult" in backbone:
        cfg.model.head.in_channels = int(4096 * backbone["width_mult"])
    return MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))


def plain(wrapper: Config) -> dict:
    """The wrapper of an optimiser for a CPU."""
    options = {key: value for key, value in wrapper.items() if key != "loss_scale"}
    return dict(options, type="OptimWrapper")


@pytest.mark.parametrize("arch", RECIPES)
def test_recipes_follow_the_authors(arch):
    cfg = load(arch)
    lr, weight_decay, mixup, num_layers = RECIPES[arch]
    assert cfg.load_from is None and cfg.model.backbone.arch == arch
    assert cfg.model.head.dropout == 0.05
    optimizer = dict(type="Lamb", lr=lr, weight_decay=weight_decay)
    assert dict(cfg.optim_wrapper.optimizer) == optimizer
    assert cfg.optim_wrapper.type == "AmpOptimWrapper"
    augments = [dict(augment) for augment in cfg.model.train_cfg.augments]
    assert augments == [dict(type="Mixup", alpha=mixup), dict(type="CutMix", alpha=1.0)]
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.train_dataloader.batch_size * 8 == 1024 == cfg.auto_scale_lr.base_batch_size
    assert RUNNERS.get(cfg.runner_type) is SqrtLRRunner
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.begin, warm_up.end, cosine.begin, cosine.end) == (0, 5, 5, 300)
    assert cosine.eta_min == 1e-6
    deep, ema = cfg.custom_hooks
    assert dict(deep) == dict(type="DeepTrainingHook", decay_epochs=100)
    assert 1 - ema.momentum == pytest.approx(0.99996, abs=1e-12)

    model = build(cfg, width_mult=1 / 64)
    groups = build_optim_wrapper(model, plain(cfg.optim_wrapper)).optimizer.param_groups
    found = {id(param): (x["lr"], x["weight_decay"]) for x in groups for param in x["params"]}
    assert len(found) == len(list(model.parameters()))
    for name, param in model.named_parameters():
        own_lr, own_decay = found[id(param)]
        assert own_decay == (0.0 if param.ndim == 1 else weight_decay)
        scale = 1.0
        if num_layers and name.startswith("backbone.stem."):
            scale = 0.8 ** (num_layers + 1)
        elif num_layers and name.startswith("backbone.blocks."):
            scale = 0.8 ** (num_layers - int(name.split(".")[2]))
        assert own_lr == pytest.approx(lr * scale, rel=1e-12)


def test_a_config_trains_a_step():
    from mmpretrain.structures import DataSample

    cfg = load("6")
    model = build(cfg, width_mult=1 / 64)
    model.init_weights()
    data = dict(
        inputs=torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_label(label) for label in (0, 1, 2, 99)],
    )
    weight = next(model.backbone.parameters())
    before = weight.detach().clone()
    log = model.train_step(data, build_optim_wrapper(model, plain(cfg.optim_wrapper)))
    # At 0 binary cross entropy is ln 2: the mean over the classes, not their sum.
    assert log["loss"].item() == pytest.approx(math.log(2), rel=0.15)
    assert not torch.equal(before, weight)


def test_loss_is_the_mean_binary_cross_entropy_on_smoothed_soft_targets():
    loss = MODELS.build(load("5").model.head.loss)
    logits = torch.randn(4, 1000)
    mixed = 0.3 * functional.one_hot(torch.tensor([1, 2, 3, 4]), 1000)
    mixed = mixed + 0.7 * functional.one_hot(torch.tensor([5, 6, 7, 8]), 1000)
    targets = 0.9 * mixed + 0.1 / 1000
    expected = functional.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(loss(logits, mixed, avg_factor=4), expected)


def test_pipelines():
    cfg = load("10")
    train = {transform.type: transform for transform in cfg.train_dataloader.dataset.pipeline}
    augment, erasing = train["RandAugment"], train["RandomErasing"]
    assert (augment.num_policies, augment.magnitude_level, augment.magnitude_std) == (2, 7, 0.5)
    assert augment.policies == "timm_increasing"
    assert (erasing.erase_prob, erasing.mode) == (0.25, "rand")
    assert train["RandomResizedCrop"].interpolation == "bicubic" and "RandomFlip" in train
    _, resize, crop, _ = cfg.val_dataloader.dataset.pipeline
    assert crop.crop_size / resize.scale == 0.875
    assert resize.interpolation == "bicubic"


@pytest.mark.parametrize("name", TESTING)
def test_configs_of_unpublished_recipes_only_test(name):
    cfg = load(name)
    assert cfg.model.backbone.arch == TESTING[name]
    assert cfg.load_from == f"vanillanet://{TESTING[name]}" and "train_cfg" not in cfg
    assert "unpublished" in (CONFIGS / "imagenet" / f"vanillanet{name}_in1k.py").read_text()
    with torch.device("meta"):
        assert build(cfg).eval()(torch.rand(1, 3, 224, 224)).shape == (1, 1000)


@pytest.mark.parametrize("name", ["vanillanet", "resnet"])
def test_fashion_mnist_trains_and_fuses(name, tmp_path, monkeypatch):
    from mmvanilla.apis.model import load_model
    from mmvanilla.apis.runners import build_test_runner, build_train_runner
    from mmvanilla.deploy.fuse_checkpoint import fuse_checkpoint

    monkeypatch.chdir(tmp_path)
    write_fashion_mnist(Path("data/fashion_mnist"), per_class=2, test_per_class=1, compressed=False)
    config = str(CONFIGS / "small" / f"{name}_fashion_mnist.py")
    options = {
        "train_dataloader.batch_size": 10,
        "train_cfg.max_epochs": 2,
        "param_scheduler": None,
        "default_hooks.checkpoint.interval": 2,
    }
    runner = build_train_runner(config, work_dir="out", cfg_options=options)
    runner.train()
    # MMPretrain's class would read the training images for both.
    assert len(runner.train_dataloader.dataset) == 20
    assert len(runner.val_dataloader.dataset) == 10
    release(runner)
    model, _ = load_model(runner.cfg, "out/epoch_2.pth")
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    if name == "vanillanet":
        report = fuse_checkpoint(config, "out/epoch_2.pth", "fused.pth", sizes=[(28, 28)])
        assert report.num_fused == 14 and report.max_difference < 1e-5
        runner = build_test_runner("fused.py", "fused.pth", work_dir="test")
        assert "accuracy/top1" in runner.test()
        release(runner)
