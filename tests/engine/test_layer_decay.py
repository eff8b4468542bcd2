"""The groups, scales and learning rates of spec'd recipes, computed here from their formulas."""

from __future__ import annotations

import pytest
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn

from mmvanilla import VanillaNet
from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model

LR, WEIGHT_DECAY = 1e-3, 0.05
OURS = "LayerDecayOptimWrapperConstructor"


class WithHead(nn.Module):
    """A backbone somewhere inside a model, and something behind it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.feature = nn.ModuleDict(dict(net=backbone))
        self.head = nn.Conv2d(8, 4, 1)


def build(model: nn.Module, constructor=OURS, **paramwise):
    optimizer = dict(type="AdamW", lr=LR, weight_decay=WEIGHT_DECAY)
    cfg = dict(optimizer=optimizer, constructor=constructor, paramwise_cfg=paramwise)
    return build_optim_wrapper(model, cfg)


def settings(model: nn.Module, wrapper: OptimWrapper) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter, by its name."""
    found = {}
    names = {param: name for name, param in model.named_parameters()}
    for group in wrapper.optimizer.param_groups:
        for param in group["params"]:
            assert names[param] not in found, "a parameter in two groups"
            found[names[param]] = (group["lr"], group["weight_decay"])
    return found


def tiny(arch: str, **kwargs) -> VanillaNet:
    return VanillaNet(arch, width_mult=1 / 64, **kwargs)


def layer_id(name: str, num_layers: int, num_blocks: int) -> int:
    """Stem 0, block i → i · num_layers // num_blocks + 1, the rest num_layers + 1."""
    if "stem." in name:
        return 0
    if "blocks." not in name:
        return num_layers + 1
    return int(name.split("blocks.")[1].split(".")[0]) * num_layers // num_blocks + 1


def assert_settings(model, found, rate, num_layers, num_blocks):
    params = dict(model.named_parameters())
    assert found.keys() == params.keys()
    for name, (lr, weight_decay) in found.items():
        expected = LR * rate ** (num_layers + 1 - layer_id(name, num_layers, num_blocks))
        assert lr == pytest.approx(expected, rel=1e-12), name
        assert weight_decay == (0.0 if params[name].dim() == 1 else WEIGHT_DECAY), name


@pytest.mark.parametrize("options", [dict(num_layers=4), dict(num_layers=None), dict()])
def test_a_layer_for_each_block(options):
    # A config cannot drop a key that it inherits, so None means that it is not given.
    model = WithHead(tiny("6"))
    assert_settings(model, settings(model, build(model, decay_rate=0.8, **options)), 0.8, 4, 4)


def test_two_blocks_in_a_layer():
    model = WithHead(tiny("13", act_num=4))
    wrapper = build(model, decay_rate=0.6, num_layers=6)
    found = settings(model, wrapper)
    assert_settings(model, found, 0.6, 6, 11)
    for block in range(11):  # as the authors' detectors have it
        name = f"feature.net.blocks.{block}.conv.first.conv.weight"
        assert found[name][0] == pytest.approx(LR * 0.6 ** (7 - (block // 2 + 1)))
    # Two groups a layer: ids 0 to 7, with and without weight decay, each with its scale.
    scales = {group["group_name"]: group["lr_scale"] for group in wrapper.optimizer.param_groups}
    expected = {f"layer_{layer}_of_6": 0.6 ** (7 - layer) for layer in range(7)} | {"rest": 1.0}
    expected |= {f"{name}_no_decay": scale for name, scale in expected.items()}
    assert scales == pytest.approx(expected, rel=1e-12)


def test_deploy_form_and_frozen_stages():
    model = WithHead(tiny("7", frozen_stages=2))
    found = settings(model, build(model, decay_rate=0.8))
    assert found.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    assert "feature.net.blocks.3.conv.first.conv.weight" in found
    assert not any("stem" in name or "blocks.0." in name for name in found)
    deployed = WithHead(tiny("7", deploy=True))
    found = settings(deployed, build(deployed, decay_rate=0.8))
    assert found["feature.net.stem.conv.weight"] == (pytest.approx(LR * 0.8**6), WEIGHT_DECAY)
    assert found["feature.net.blocks.4.act.conv.bias"] == (pytest.approx(LR * 0.8), 0.0)


NAMES = {"mmdet": "maskrcnn_vanillanet", "mmseg": "upernet_vanillanet", "mmpretrain": "vanillanet"}
TOOLBOXES = [pytest.param(name, marks=pytest.mark.toolbox(name)) for name in NAMES]
MMPRETRAINS = dict.fromkeys(("norm_decay_mult", "bias_decay_mult", "flat_decay_mult"), 0.0)


def build_in(toolbox: str) -> tuple[nn.Module, int]:
    model = build_model(load_config(f"shapes/{NAMES[toolbox]}_shapes.py"))
    return model, len(model.backbone.blocks)


@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_every_toolbox_finds_it(toolbox):
    model, blocks = build_in(toolbox)
    found = settings(model, build(model, decay_rate=0.6, num_layers=2))
    assert blocks > 2
    assert_settings(model, found, 0.6, 2, blocks)


@pytest.mark.toolbox("mmpretrain")
def test_mmpretrains_own_constructor_reads_the_same_depths():
    model, blocks = build_in("mmpretrain")
    name = "LearningRateDecayOptimWrapperConstructor"
    wrapper = build(model, constructor=name, layer_decay_rate=0.8, **MMPRETRAINS)
    assert_settings(model, settings(model, wrapper), 0.8, blocks, blocks)


@pytest.mark.toolbox("mmpretrain")
def test_a_backbone_of_mmpretrain_is_asked_as_well():
    vit = dict(type="mmpretrain.VisionTransformer", arch="deit-tiny", img_size=32, patch_size=16)
    model = WithHead(MODELS.build(vit))
    found = settings(model, build(model, decay_rate=0.5))
    assert found["feature.net.patch_embed.projection.weight"][0] == pytest.approx(LR * 0.5**13)
    assert found["feature.net.layers.0.attn.qkv.weight"][0] == pytest.approx(LR * 0.5**12)
    assert found["feature.net.layers.11.attn.qkv.weight"][0] == pytest.approx(LR * 0.5)
    assert found["head.weight"] == (LR, WEIGHT_DECAY)


def test_a_model_without_depths_is_an_error():
    with pytest.raises(TypeError, match=r"Sequential has get_layer_depth\(param_name, prefix\)"):
        build(nn.Sequential(nn.Conv2d(3, 3, 1)), decay_rate=0.8)


@pytest.mark.parametrize(
    ("paramwise", "error", "match"),
    [
        (dict(num_layers=4), TypeError, "decay_rate"),
        (dict(decay_rate=0.8, num_layer=4), TypeError, "'num_layer'"),
        (dict(decay_rate=0.0), ValueError, "found 0.0"),
        (dict(decay_rate=1.5), ValueError, "found 1.5"),
        (dict(decay_rate="0.8"), ValueError, "found '0.8'"),
        (dict(decay_rate=0.8, num_layers=0), ValueError, "found 0"),
        (dict(decay_rate=0.8, num_layers=2.5), ValueError, "found 2.5"),
        (dict(decay_rate=0.8, num_layers=5), ValueError, "this backbone has only 4"),
    ],
)
def test_wrong_options(paramwise, error, match):
    with pytest.raises(error, match=match):
        build(WithHead(tiny("6")), **paramwise)


def test_an_optimizer_without_lr_is_an_error():
    wrapper = dict(optimizer=dict(type="AdamW"), constructor=OURS, paramwise_cfg=dict(decay_rate=1))
    with pytest.raises(ValueError, match="lr"):
        build_optim_wrapper(tiny("6"), wrapper)
