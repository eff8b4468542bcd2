"""Equalising changes the weights of a fused network, and not what it computes."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmvanilla import VanillaNet, fuse_model
from mmvanilla.models.archs import ARCHS
from mmvanilla.models.equalise import equalise
from mmvanilla.utils.numerics import largest, relative_difference
from tests.helpers import TINY, randomise, tiny_arch
from tests.models.test_strict_loading import Scaled


def fused(arch=TINY, **options):
    """A fused network in float64 with nothing left at its initial value."""
    return fuse_model(randomise(VanillaNet(arch, **options)).double().eval())


def images(net):
    size = net.fixed_input_size or (64, 64)
    return torch.rand(2, net.stem.conv.in_channels, *size, dtype=torch.float64)


def difference(net, other, x):
    """The largest difference of any output."""
    return largest(relative_difference(*pair) for pair in zip(net(x), other(x), strict=True))


def with_zeros():
    net = fused()
    net.stem.conv.weight.data[0] = 0
    net.blocks[0].act.conv.weight.data[1] = 0
    return net


FORMS = {
    **{name: lambda name=name: fused(tiny_arch(name)) for name in ARCHS},
    "n = 1": lambda: fused(act_num=1),
    "n = 4": lambda: fused(act_num=4),
    "no series": lambda: fused(series_activation=False),
    "leaky ReLU": lambda: fused(act_cfg=dict(type="LeakyReLU", negative_slope=0.2)),
    "PReLU": lambda: fused(act_cfg=dict(type="PReLU")),
    "one level": lambda: fused(out_indices=(1,)),
    "gray": lambda: fused(in_channels=1),
    "channels of zeros": with_zeros,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_keeps_its_outputs(form):
    net = FORMS[form]()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    balanced = equalise(net)
    assert difference(net, balanced, images(net)) < 1e-10
    assert balanced.state_dict().keys() == before.keys()
    assert any((a != b).any() for a, b in zip(net.parameters(), balanced.parameters(), strict=True))
    assert all((before[name] == value).all() for name, value in net.state_dict().items())
    assert equalise(net, inplace=True) is net
    assert all(
        torch.equal(a, b) for a, b in zip(net.parameters(), balanced.parameters(), strict=True)
    )


def test_a_channel_of_tiny_weights_that_is_a_constant_does_not_grow():
    net = fused()
    net.blocks[0].conv.weight.data[0] *= 1e-9
    net.blocks[0].conv.bias.data[0] = 1.0
    assert abs(equalise(net).blocks[0].conv.bias[0]) < 10


def with_a_scale_a_layer(net):
    """A copy whose weights have 8 bits, with one scale for each layer."""
    net = copy.deepcopy(net)
    for conv in [part for part in net.modules() if isinstance(part, nn.Conv2d)]:
        scale = conv.weight.data.abs().max() / 127
        conv.weight.data = (conv.weight.data / scale).round() * scale
    return net


def test_a_scale_a_layer_then_loses_no_channel():
    net = fused(out_indices=(2,))
    x = images(net)
    for block in (net.stem, *net.blocks):  # the same function with channels of unequal size
        factor = 10 ** (4 * torch.rand(len(block.conv.weight), dtype=torch.float64) - 2)
        block.conv.weight.data *= factor[:, None, None, None]
        block.conv.bias.data *= factor
        block.act.conv.weight.data /= factor[:, None, None, None]
    balanced = equalise(net)
    assert difference(net, with_a_scale_a_layer(net), x) > 0.2
    assert difference(net, with_a_scale_a_layer(balanced), x) < 0.05


@pytest.mark.toolbox("mmpretrain")
def test_a_classifier_is_balanced_with_its_head():
    import mmvanilla.cls_head  # noqa: F401

    backbone = dict(type="VanillaNet", arch=TINY, out_indices=-1)
    head = dict(type="VanillaNetClsHead", num_classes=5, in_channels=24)
    model = MODELS.build(dict(type="mmpretrain.ImageClassifier", backbone=backbone, head=head))
    model = fuse_model(randomise(model).double().eval())
    balanced, x = equalise(model), images(model.backbone)
    assert relative_difference(model(x), balanced(x)) < 1e-10
    assert (model.head.conv.weight != balanced.head.conv.weight).any()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: nn.Conv2d(3, 3, 1), "no VanillaNet"),
        (lambda: VanillaNet(TINY), "fuse_model"),
        (lambda: fused(act_cfg=dict(type="GELU")), "layer with GELU"),
        (lambda: Scaled(2, deploy=True), "layer with Doubled"),
    ],
)
def test_what_cannot_be_equalised_is_refused(model, words):
    with pytest.raises(ValueError, match=words):
        equalise(model())


def test_weights_with_nan_are_refused():
    net = fused()
    net.stem.conv.weight.data[0, 0] = float("nan")
    with pytest.raises(RuntimeError, match="NaN"):
        equalise(net, inplace=True)
