"""Equalising changes the weights of a fused network, and not what it computes."""

import copy

import pytest
import torch
from torch import nn

from mmvanilla import VanillaNet, fuse_model
from mmvanilla.models.archs import ARCHS
from mmvanilla.models.equalise import equalise
from mmvanilla.utils.numerics import largest, relative_difference
from tests.helpers import TINY, randomise, tiny_arch


def fused(arch, **options):
    """A fused network in float64 with nothing left at its initial value."""
    return fuse_model(randomise(VanillaNet(arch, **options)).double().eval())


def images(net):
    return torch.rand(2, 3, *(net.fixed_input_size or (64, 64)), dtype=torch.float64)


def difference(net, other, x):
    """The largest difference of any output."""
    return largest(relative_difference(*pair) for pair in zip(net(x), other(x), strict=True))


@pytest.mark.parametrize("name", ARCHS)
def test_every_arch_keeps_its_outputs(name):
    net = fused(tiny_arch(name))
    balanced = equalise(net)
    x = images(net)
    assert (
        largest(relative_difference(*pair) for pair in zip(net(x), balanced(x), strict=True))
        < 1e-10
    )
    assert balanced.state_dict().keys() == net.state_dict().keys()


@pytest.mark.parametrize(
    "options",
    [
        dict(act_num=1),
        dict(act_num=4),
        dict(series_activation=False),
        dict(act_cfg=dict(type="LeakyReLU", negative_slope=0.2)),
        dict(act_cfg=dict(type="PReLU")),
        dict(shortcut="before_act", deep_training=False, arch=dict(dims=(8, 8, 8), strides=(2, 1))),
        dict(out_indices=(1,)),
        dict(in_channels=1),
    ],
)
def test_every_form_keeps_its_outputs(options):
    options = dict(options)
    net = fused(options.pop("arch", TINY), **options)
    balanced = equalise(net)
    x = images(net)[:, : net.stem.conv.in_channels]
    assert (
        largest(relative_difference(*pair) for pair in zip(net(x), balanced(x), strict=True))
        < 1e-10
    )
    assert any((a != b).any() for a, b in zip(net.parameters(), balanced.parameters(), strict=True))


def with_a_scale_a_layer(net):
    """A copy whose weights have 8 bits, with one scale for each layer."""
    net = copy.deepcopy(net)
    for conv in [part for part in net.modules() if isinstance(part, nn.Conv2d)]:
        scale = conv.weight.data.abs().max() / 127
        conv.weight.data = (conv.weight.data / scale).round() * scale
    return net


def test_a_scale_a_layer_then_loses_no_channel():
    net = fused(TINY, out_indices=(2,))
    x = images(net)
    for block in (net.stem, *net.blocks):  # the same function with channels of unequal size
        factor = 10 ** (4 * torch.rand(len(block.conv.weight), dtype=torch.float64) - 2)
        block.conv.weight.data *= factor[:, None, None, None]
        block.conv.bias.data *= factor
        block.act.conv.weight.data /= factor[:, None, None, None]
    balanced = equalise(net)
    assert difference(net, with_a_scale_a_layer(net), x) > 0.2
    assert difference(net, with_a_scale_a_layer(balanced), x) < 0.05


def test_in_place_or_a_copy():
    net = fused(TINY)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert equalise(net) is not net
    assert all((before[name] == value).all() for name, value in net.state_dict().items())
    assert equalise(net, inplace=True) is net


def test_a_channel_of_zeros_is_left_alone():
    net = fused(TINY)
    net.stem.conv.weight.data[0] = 0
    net.blocks[0].act.conv.weight.data[1] = 0
    balanced, x = equalise(net), images(net)
    assert (
        largest(relative_difference(*pair) for pair in zip(net(x), balanced(x), strict=True))
        < 1e-10
    )


@pytest.mark.toolbox("mmpretrain")
def test_a_classifier_is_balanced_with_its_head():
    from mmengine.registry import MODELS

    import mmvanilla.cls_head  # noqa: F401

    model = MODELS.build(
        dict(
            type="mmpretrain.ImageClassifier",
            backbone=dict(type="VanillaNet", arch=TINY, out_indices=-1),
            head=dict(type="VanillaNetClsHead", num_classes=5, in_channels=24),
        )
    )
    model = fuse_model(randomise(model).double().eval())
    balanced, x = equalise(model), images(model.backbone)
    assert relative_difference(model(x), balanced(x)) < 1e-10
    assert (model.head.conv.weight != balanced.head.conv.weight).any()


@pytest.mark.toolbox("mmdet")
def test_a_detectors_neck_gets_the_same_maps():
    from mmengine.registry import MODELS

    channels = VanillaNet(TINY).out_channels
    model = nn.Module()
    model.backbone = fused(TINY)
    model.neck = MODELS.build(
        dict(type="mmdet.FPN", in_channels=list(channels), out_channels=8, num_outs=4)
    ).double()
    balanced, x = equalise(model), images(model.backbone)
    for expected, found in zip(
        model.neck(model.backbone(x)), balanced.neck(balanced.backbone(x)), strict=True
    ):
        assert relative_difference(expected, found) < 1e-10


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: nn.Conv2d(3, 3, 1), "no VanillaNet"),
        (lambda: VanillaNet(TINY), "fuse_model"),
        (lambda: fused(TINY, act_cfg=dict(type="GELU")), "GELU does not commute"),
        (lambda: fused(TINY, shortcut="after_act"), "late shortcut"),
    ],
)
def test_what_cannot_be_equalised_is_refused(model, words):
    with pytest.raises(ValueError, match=words):
        equalise(model())


def test_weights_with_nan_are_refused_and_left():
    net = fused(TINY)
    net.stem.conv.weight.data[0, 0] = float("nan")
    with pytest.raises(RuntimeError, match="NaN"):
        equalise(net, inplace=True)
