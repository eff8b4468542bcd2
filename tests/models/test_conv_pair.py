"""A pair of convolutions: what it fuses to, how it starts, and what it has of a convolution."""

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from mmcv.cnn.utils import fuse_conv_bn
from mmengine.model import Sequential
from torch import nn

from mmvanilla.models.conv_pair import ConvNorm, ConvPair
from mmvanilla.models.fusion import fuse_model
from tests.helpers import randomise, relative_difference


def assert_fuses(pair, deployed=None, tolerance=1e-9):
    """It computes what its convolution does; ``deployed`` is the same, and takes its weights."""
    dtype = torch.float64 if tolerance < 1e-5 else torch.float32
    randomise(pair).to(dtype).eval()
    conv = pair.fuse()
    x = torch.randn(2, pair.in_channels, 19, 20, dtype=dtype)
    assert type(conv) is nn.Conv2d
    assert relative_difference(pair(x).detach(), conv(x).detach()) < tolerance
    if deployed is not None:
        assert type(deployed) is nn.Conv2d
        deployed.to(dtype).load_state_dict(conv.state_dict(), strict=True)
        assert torch.equal(deployed(x), conv(x))


@pytest.mark.parametrize(
    "geometry",
    [
        dict(kernel_size=4, stride=4),
        dict(kernel_size=3, stride=2, padding=1, padding_mode="circular"),
        dict(kernel_size=3, padding=2, dilation=2, padding_mode="reflect"),
        dict(kernel_size=7, padding=3, groups=2, stride=9),
        dict(kernel_size=(1, 5), padding=(0, 4), stride=(1, 3)),
        dict(kernel_size=3, padding="same", dilation=4),
        dict(kernel_size=1, padding=3),
        dict(kernel_size=1, mid_channels=10),
        dict(kernel_size=1, last_norm=False),
        dict(kernel_size=1, bias=False),
        dict(kernel_size=1, norm_cfg=None),
        dict(kernel_size=1, norm_cfg=dict(type="BN", affine=False, eps=0.1)),
    ],
    ids=str,
)
def test_a_pair_fuses_to_its_deploy_form(geometry):
    for tolerance in (1e-9, 1e-5):
        pair, deployed = (ConvPair(4, 6, **geometry, deploy=deploy) for deploy in (False, True))
        assert_fuses(pair, deployed, tolerance)


@torch.no_grad()
def test_after_mmcvs_own_fusing_there_is_nothing_left_to_fold():
    pair = randomise(ConvPair(4, 6, 3, padding=1)).double().eval()
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    expected = pair(x)
    halfway = fuse_conv_bn(nn.Sequential(pair))
    assert isinstance(halfway[0].second.norm, nn.Identity)
    assert relative_difference(expected, fuse_model(halfway)(x)) < 1e-9


@pytest.mark.parametrize("kind", ["ConvPair", "mmengine.ConvPair", ConvPair], ids=str)
def test_it_comes_from_conv_cfg_where_a_convolution_would(kind):
    arguments = dict(stride=2, padding=1, groups=2, bias=False)
    pair, deployed = (
        build_conv_layer(dict(type=kind, mid_channels=8, deploy=deploy), 4, 6, 3, **arguments)
        for deploy in (False, True)
    )
    assert isinstance(pair, ConvPair)
    assert pair.second.norm is None and pair.second.conv.bias is None
    assert_fuses(pair, deployed)


def test_a_misspelt_argument_is_an_error():
    for build in (ConvNorm, ConvPair, lambda *args, **kw: ConvPair(*args, **kw, deploy=True)):
        with pytest.raises(TypeError, match="stide"):
            build(3, 4, 1, stide=2)


@pytest.mark.parametrize(
    ("norm_cfg", "eps"),
    [
        (dict(type="BN"), 1e-6),
        (dict(type="GN", num_groups=2), 1e-6),
        (dict(type="BN", eps=1e-3), 1e-3),
    ],
    ids=str,
)
def test_every_norm_has_our_eps_unless_it_says_otherwise(norm_cfg, eps):
    pair = ConvPair(4, 6, 1, norm_cfg=norm_cfg)
    assert pair.first.norm.eps == pair.second.norm.eps == eps


def test_what_is_written_takes_effect_as_in_a_convolution():
    x = torch.randn(2, 4, 9, 8)
    for padding_mode in ("zeros", "reflect"):
        pair, conv = (
            kind(4, 6, 3, stride=2, padding=1, padding_mode=padding_mode)
            for kind in (ConvPair, nn.Conv2d)
        )
        for layer in (pair, conv):
            layer.stride, layer.dilation = 1, (2, 2)
        assert pair(x).shape == conv(x).shape
        assert_fuses(pair)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_there_is_no_one_weight_to_read_or_replace(name):
    pair = ConvPair(4, 6, 3)
    assert not hasattr(pair, name)
    with pytest.raises(AttributeError, match=f"first.conv.{name}"):
        setattr(pair, name, nn.Parameter(torch.zeros(6)))


def test_it_starts_with_the_variance_of_a_conv_modules_convolution():
    arguments = dict(in_channels=64, out_channels=128, kernel_size=3, norm_cfg=dict(type="BN"))
    pair = ConvModule(conv_cfg=dict(type="ConvPair"), **arguments).conv
    plain = ConvModule(**arguments).conv
    assert pair.first.conv.weight.std().item() == pytest.approx(plain.weight.std().item(), rel=0.05)
    # 1x1 from 128 to 128 channels: 2 / fan_out.
    assert float(pair.second.conv.weight.var()) == pytest.approx(2 / 128, rel=0.05)
    assert not pair.first.conv.bias.any()


def test_a_pair_that_starts_at_zero_learns():
    pair = ConvPair(4, 6, 3, padding=1, last_norm=False, zero_init=True)
    x = torch.randn(2, 4, 5, 5)
    assert not pair(x).any()
    pair(x).sub(1).square().sum().backward()
    assert pair.second.conv.weight.grad.any()


def test_an_init_cfg_reaches_both_convolutions_and_the_pairs_own_wins():
    layers = Sequential(
        ConvPair(16, 16, 3, init_cfg=dict(type="Constant", layer="_BatchNorm", val=0.5)),
        init_cfg=[
            dict(type="Normal", layer="Conv2d", std=3.0, bias=0.5),
            dict(type="Constant", layer="_BatchNorm", val=0.25),
        ],
    )
    layers.init_weights()
    for part in (layers[0].first, layers[0].second):
        assert float(part.conv.weight.std()) == pytest.approx(3.0, rel=0.2)
        assert bool((part.conv.bias == 0.5).all()) and bool((part.norm.weight == 0.5).all())
