import copy

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from mmcv.cnn.utils import fuse_conv_bn
from mmengine.model import Sequential
from torch import nn

from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.fusion import fuse_model
from mmvanilla.models.layers import ConvNorm, ShortcutConv, complete_norm_cfg
from tests.helpers import randomise, relative_difference


def fused_difference(layer, dtype=torch.float64, size=(9, 10)):
    randomise(layer).to(dtype).eval()
    channels = layer.geometry.in_channels
    x = torch.randn(2, channels, *size, dtype=dtype)
    with torch.no_grad():
        return relative_difference(layer(x), layer.fuse()(x))


@pytest.mark.parametrize(
    "geometry",
    [
        dict(kernel_size=1),
        dict(kernel_size=4, stride=4),
        dict(kernel_size=3, stride=2, padding=1),
        dict(kernel_size=3, padding=2, dilation=2),
        dict(kernel_size=3, padding=1, groups=2),
        dict(kernel_size=(1, 3), padding=(0, 1)),
        dict(kernel_size=3, padding=1, padding_mode="reflect"),
        dict(kernel_size=1, mid_channels=10),
        dict(kernel_size=1, last_norm=False),
        dict(kernel_size=1, bias=False),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_a_pair_fuses_exactly(geometry, dtype, tolerance):
    assert fused_difference(ConvPair(4, 6, **geometry), dtype) < tolerance


@pytest.mark.parametrize("conv", [lambda: ConvPair(6, 6, 1), lambda: ConvNorm(6, 6, 1)])
def test_an_identity_shortcut_fuses_into_the_convolution(conv):
    assert fused_difference(ShortcutConv(conv())) < 1e-9


def test_a_projected_shortcut_fuses_into_the_convolution():
    layer = ShortcutConv(ConvPair(4, 6, 1), ConvNorm(4, 6, 1))
    assert fused_difference(layer) < 1e-9


def test_fusing_changes_nothing_in_the_layer_and_gives_plain_strides():
    layer = randomise(ConvPair(4, 6, 1)).eval()
    before = copy.deepcopy(layer.state_dict())
    conv = layer.fuse()
    assert type(conv) is nn.Conv2d
    assert conv.weight.stride() == (4, 1, 1, 1)
    assert conv.weight.requires_grad and not conv.training
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_a_fading_pair_refuses_to_fuse_and_names_lambda():
    layer = ConvPair(4, 6, 1).eval()
    layer.act.act_lambda = 0.25
    with pytest.raises(RuntimeError, match="λ = 0.25"):
        layer.fuse()


def test_a_pair_comes_from_conv_cfg_where_a_convolution_would():
    conv = build_conv_layer(dict(type="ConvPair"), 4, 6, 3, stride=2, padding=1, bias=False)
    assert isinstance(conv, ConvPair)
    assert conv.second.norm is None and conv.second.conv.bias is None
    module = ConvModule(
        4, 6, 3, padding=1, conv_cfg=dict(type="ConvPair"), norm_cfg=dict(type="BN")
    )
    assert module(torch.randn(2, 4, 8, 8)).shape == (2, 6, 8, 8)


def test_a_misspelt_argument_is_an_error():
    with pytest.raises(TypeError, match="stide"):
        ConvPair(3, 4, 1, stide=2)
    with pytest.raises(TypeError, match="stide"):
        ConvNorm(3, 4, 1, stide=2)


@pytest.mark.parametrize(
    ("norm_cfg", "eps"),
    [
        (dict(type="BN"), 1e-6),
        (dict(type="SyncBN"), 1e-6),
        (dict(type="GN", num_groups=2), 1e-6),
        (dict(type="BN", eps=1e-3), 1e-3),
        (dict(requires_grad=False), 1e-6),
    ],
    ids=str,
)
def test_every_norm_of_a_pair_has_our_eps_unless_it_says_otherwise(norm_cfg, eps):
    pair = ConvPair(4, 6, 1, norm_cfg=norm_cfg)
    assert pair.first.norm.eps == pair.second.norm.eps == eps


def test_no_norm_is_no_norm():
    assert complete_norm_cfg(None) is None
    pair = ConvPair(4, 6, 1, norm_cfg=None)
    assert pair.first.norm is None and pair.second.norm is None


class TestPlainForm:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("kind", ["ConvPair", "mmengine.ConvPair", ConvPair], ids=str)
    def test_deploy_builds_the_convolution_that_fusing_gives(self, kind, bias):
        geometry = dict(stride=2, padding=2, dilation=2, groups=2)
        extra = dict(padding_mode="circular", mid_channels=8, norm_cfg=dict(type="BN"))
        arguments = (4, 6, 3)
        pair = build_conv_layer(dict(type=kind, **extra), *arguments, bias=bias, **geometry)
        conv = build_conv_layer(
            dict(type=kind, deploy=True, **extra), *arguments, bias=bias, **geometry
        )
        assert type(conv) is nn.Conv2d
        randomise(pair).eval()
        conv.load_state_dict(pair.fuse().state_dict(), strict=True)
        x = torch.randn(2, 4, 9, 8)
        assert relative_difference(pair(x).detach(), conv(x).detach()) < 1e-5

    def test_of_a_subclass_too(self):
        class Narrow(ConvPair):
            def __init__(self, in_channels, out_channels, kernel_size, **kwargs):
                super().__init__(in_channels, out_channels, kernel_size, mid_channels=2, **kwargs)

        assert isinstance(Narrow(4, 6, 1), Narrow)
        conv = Narrow(4, 6, 3, deploy=True, padding=1, padding_mode="reflect")
        assert type(conv) is nn.Conv2d and conv.padding_mode == "reflect"
        assert conv.padding == (1, 1)

    def test_a_misspelt_argument_is_an_error(self):
        with pytest.raises(TypeError, match="stide"):
            ConvPair(3, 4, 1, stide=2, deploy=True)


class TestAttributesOfAConvolution:
    @pytest.mark.parametrize("padding_mode", ["zeros", "circular", "reflect"])
    def test_what_is_written_takes_effect_as_in_a_convolution(self, padding_mode):
        pair = ConvPair(4, 6, 3, stride=2, padding=1, padding_mode=padding_mode)
        conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode=padding_mode)
        for layer in (pair, conv):
            layer.stride, layer.dilation = 1, (2, 2)
        assert pair.dilation == (2, 2) and pair.out_channels == 6 and pair.in_channels == 4
        x = torch.randn(2, 4, 9, 8)
        assert pair(x).shape == conv(x).shape
        assert fused_difference(pair) < 1e-9

    def test_another_padding(self):
        pair = ConvPair(4, 6, 3, padding=1)
        pair.padding = (2, 2)
        assert pair(torch.randn(2, 4, 9, 8)).shape == (2, 6, 11, 10)
        assert fused_difference(pair) < 1e-9

    @pytest.mark.parametrize("name", ["weight", "bias"])
    def test_there_is_no_one_weight_to_read_or_replace(self, name):
        pair = ConvPair(4, 6, 3)
        assert not hasattr(pair, name)
        with pytest.raises(AttributeError, match=f"first.conv.{name}"):
            getattr(pair, name)
        with pytest.raises(AttributeError, match=f"first.conv.{name}"):
            setattr(pair, name, nn.Parameter(torch.zeros(6)))


class TestInitialisation:
    def test_a_conv_modules_pair_has_the_variance_of_its_convolution(self):
        arguments = dict(in_channels=64, out_channels=128, kernel_size=3, norm_cfg=dict(type="BN"))
        pair = ConvModule(conv_cfg=dict(type="ConvPair"), **arguments).conv
        plain = ConvModule(**arguments).conv
        assert float(pair.first.conv.weight.std()) == pytest.approx(
            float(plain.weight.std()), rel=0.05
        )
        # 1x1 from 128 to 128 channels: 2 / fan_out.
        assert float(pair.second.conv.weight.var()) == pytest.approx(2 / 128, rel=0.05)
        assert not pair.first.conv.bias.any()

    def test_a_pair_that_starts_at_zero_learns(self):
        pair = ConvPair(4, 6, 3, padding=1, last_norm=False, zero_init=True)
        x = torch.randn(2, 4, 5, 5)
        assert not pair(x).any()
        pair(x).sub(1).square().sum().backward()
        assert pair.second.conv.weight.grad.any()
        assert fused_difference(pair) < 1e-9

    def test_an_init_cfg_reaches_both_convolutions(self):
        layers = Sequential(
            ConvPair(16, 16, 3),
            init_cfg=[
                dict(type="Normal", layer="Conv2d", std=3.0, bias=0.5),
                dict(type="Constant", layer="_BatchNorm", val=0.25),
            ],
        )
        layers.init_weights()
        pair = layers[0]
        for part in (pair.first, pair.second):
            assert float(part.conv.weight.std()) == pytest.approx(3.0, rel=0.2)
            assert bool((part.conv.bias == 0.5).all()) and bool((part.norm.weight == 0.25).all())

    def test_a_pairs_own_init_cfg_wins(self):
        layers = Sequential(
            ConvPair(4, 4, 1, init_cfg=dict(type="Constant", layer="_BatchNorm", val=0.5)),
            init_cfg=dict(type="Constant", layer="_BatchNorm", val=1.0),
        )
        layers.init_weights()
        assert bool((layers[0].second.norm.weight == 0.5).all())


@torch.no_grad()
def test_after_mmcvs_own_fusing_there_is_nothing_left_to_fold():
    pair = randomise(ConvPair(4, 6, 3, padding=1)).double().eval()
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    expected = pair(x)
    halfway = fuse_conv_bn(nn.Sequential(pair))
    assert isinstance(halfway[0].second.norm, nn.Identity)
    fused = fuse_model(halfway)
    assert type(fused[0]) is nn.Conv2d
    assert relative_difference(expected, fused(x)) < 1e-9
