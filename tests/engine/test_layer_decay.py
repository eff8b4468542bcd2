"""The groups, scales and learning rates of spec'd recipes, computed here from their formulas."""

from __future__ import annotations

import pytest
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmvanilla import VanillaNet

LR, WEIGHT_DECAY = 1e-3, 0.05


class WithHead(nn.Module):
    """A backbone somewhere inside a model, and something behind it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.feature = nn.ModuleDict(dict(net=backbone))
        self.head = nn.Conv2d(8, 4, 1)


def build(model: nn.Module, constructor="LayerDecayOptimWrapperConstructor", **paramwise):
    return build_optim_wrapper(
        model,
        dict(
            type="OptimWrapper",
            optimizer=dict(type="AdamW", lr=LR, weight_decay=WEIGHT_DECAY),
            constructor=constructor,
            paramwise_cfg=paramwise,
        ),
    )


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


def classification_id(name: str, num_layers: int) -> int:
    """Stem 0, block i → i + 1, the classifier num_layers + 1."""
    if "stem." in name:
        return 0
    return int(name.split("blocks.")[1].split(".")[0]) + 1 if "blocks." in name else num_layers + 1


def detection_id(name: str) -> int:
    """13: stem 0, block i → i // 2 + 1, the rest 7."""
    if "stem." in name:
        return 0
    return int(name.split("blocks.")[1].split(".")[0]) // 2 + 1 if "blocks." in name else 7


def expected_settings(model, rate, num_layers, layer_id):
    return {
        name: (
            LR * rate ** (num_layers + 1 - layer_id(name)),
            0.0 if param.dim() == 1 else WEIGHT_DECAY,
        )
        for name, param in model.named_parameters()
    }


def assert_settings(found, expected):
    assert found.keys() == expected.keys()
    for name, (lr, weight_decay) in expected.items():
        assert found[name][0] == pytest.approx(lr, rel=1e-12), name
        assert found[name][1] == weight_decay, name


@pytest.mark.parametrize("named", [True, False], ids=["num_layers given", "default"])
@pytest.mark.parametrize(("arch", "num_layers"), [("6", 4), ("7", 5)])
def test_classification_mapping(arch, num_layers, named):
    model = WithHead(tiny(arch))
    wrapper = build(model, decay_rate=0.8, **dict(num_layers=num_layers) if named else {})
    expected = expected_settings(
        model, 0.8, num_layers, lambda name: classification_id(name, num_layers)
    )
    assert_settings(settings(model, wrapper), expected)


def test_none_means_not_given():
    # A config cannot drop a key that it inherits.
    model = WithHead(tiny("5"))
    found = settings(model, build(model, decay_rate=0.6, num_layers=None))
    assert_settings(found, settings(model, build(model, decay_rate=0.6)))


def test_detection_mapping():
    model = WithHead(tiny("13", act_num=4))
    wrapper = build(model, decay_rate=0.6, num_layers=6)
    assert_settings(settings(model, wrapper), expected_settings(model, 0.6, 6, detection_id))
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


DET_HEADS = dict(
    neck=dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
    bbox_head=dict(
        type="RetinaHead",
        num_classes=3,
        in_channels=8,
        feat_channels=8,
        anchor_generator=dict(
            type="AnchorGenerator", ratios=[1.0], scales=[8], strides=[4, 8, 16, 32, 64]
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
    ),
)
SEG_HEADS = dict(
    decode_head=dict(
        type="FCNHead",
        in_channels=64,
        channels=8,
        num_classes=3,
        in_index=3,
        num_convs=1,
        norm_cfg=dict(type="BN"),
    )
)
CLS_HEADS = dict(
    neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", in_channels=64, num_classes=3),
)
TOOLBOXES = {
    "mmdet": dict(type="RetinaNet", **DET_HEADS),
    "mmseg": dict(type="EncoderDecoder", **SEG_HEADS),
    "mmpretrain": dict(type="ImageClassifier", **CLS_HEADS),
}


def build_in(toolbox: str) -> nn.Module:
    pytest.importorskip(toolbox)
    pytest.importorskip("mmcv.ops") if toolbox == "mmdet" else None
    init_default_scope(toolbox)
    indices = (3,) if toolbox == "mmpretrain" else (0, 1, 2, 3)
    backbone = dict(type="VanillaNet", arch="13", width_mult=1 / 64, out_indices=indices)
    return MODELS.build(dict(TOOLBOXES[toolbox], backbone=backbone))


@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_every_toolbox_finds_it(toolbox):
    model = build_in(toolbox)
    wrapper = build(model, decay_rate=0.6, num_layers=6)
    assert_settings(settings(model, wrapper), expected_settings(model, 0.6, 6, detection_id))


def test_mmpretrains_own_constructor_reads_the_same_depths():
    model = build_in("mmpretrain")
    wrapper = build(
        model,
        constructor="LearningRateDecayOptimWrapperConstructor",
        layer_decay_rate=0.8,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
    )
    expected = expected_settings(model, 0.8, 11, lambda name: classification_id(name, 11))
    assert_settings(settings(model, wrapper), expected)


def test_a_backbone_of_mmpretrain_is_asked_as_well():
    build_in("mmpretrain")
    vit = dict(type="VisionTransformer", arch="deit-tiny", img_size=32, patch_size=16)
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
        (dict(), TypeError, "decay_rate"),
        (dict(num_layers=4), TypeError, "decay_rate"),
        (dict(decay_rate=0.8, num_layer=4), TypeError, "'num_layer'"),
        (dict(decay_rate=0.8, norm_decay_mult=0.0), TypeError, "norm_decay_mult"),
        (dict(decay_rate=0.0), ValueError, "found 0.0"),
        (dict(decay_rate=1.5), ValueError, "found 1.5"),
        (dict(decay_rate="0.8"), ValueError, "found '0.8'"),
        (dict(decay_rate=0.8, num_layers=0), ValueError, "found 0"),
        (dict(decay_rate=0.8, num_layers=2.5), ValueError, "found 2.5"),
        (
            dict(decay_rate=0.8, num_layers=5),
            ValueError,
            "num_layers=5, but this backbone has only 4",
        ),
    ],
)
def test_wrong_options(paramwise, error, match):
    with pytest.raises(error, match=match):
        build(WithHead(tiny("6")), **paramwise)


def test_an_optimizer_without_lr_is_an_error():
    wrapper = dict(
        optimizer=dict(type="AdamW"),
        constructor="LayerDecayOptimWrapperConstructor",
        paramwise_cfg=dict(decay_rate=0.8),
    )
    with pytest.raises(ValueError, match="lr"):
        build_optim_wrapper(tiny("6"), wrapper)
