import copy
import pickle

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from torch import nn

from mmvanilla.models.layers import (
    ConvNorm,
    ConvPair,
    FadingReLU,
    ShortcutConv,
    complete_norm_cfg,
)
from tests.helpers import randomise, relative_difference


def fused_difference(layer, dtype=torch.float64, size=(9, 10)):
    randomise(layer).to(dtype).eval()
    channels = layer.geometry.in_channels
    x = torch.randn(2, channels, *size, dtype=dtype)
    with torch.no_grad():
        return relative_difference(layer(x), layer.fuse()(x))


@pytest.mark.parametrize("act_lambda", [0.0, 0.25, 0.5, 1.0])
def test_fading_relu_is_the_papers_mixture(act_lambda):
    act = FadingReLU()
    act.act_lambda = act_lambda
    x = torch.randn(4, 5, dtype=torch.float64)
    expected = (1 - act_lambda) * x.relu() + act_lambda * x
    assert torch.allclose(act(x.clone()), expected, rtol=0, atol=1e-15)


def test_at_the_end_fading_relu_costs_nothing():
    act = FadingReLU()
    x = torch.randn(3, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t), lambda t: t):
        assert act(x) is x
    assert saved == []


def test_fading_relu_has_the_gradient_of_a_leaky_relu():
    act = FadingReLU()
    act.act_lambda = 0.5
    x = torch.tensor([-2.0, 3.0], requires_grad=True)
    act(x * 1.0).sum().backward()
    assert x.grad.tolist() == [0.5, 1.0]


@pytest.mark.parametrize("read", [get_state_dict, nn.Module.state_dict])
@pytest.mark.parametrize("load", [load_state_dict, nn.Module.load_state_dict])
def test_lambda_travels_with_the_weights(read, load):
    source = ConvPair(3, 4, 1)
    source.act.act_lambda = 0.1
    target = ConvPair(3, 4, 1)
    load(target, read(source))
    assert target.act.act_lambda == 0.1
    assert read(source)["act.act_lambda"].dtype == torch.float64


def test_weights_without_lambda_are_of_a_finished_model():
    source, target = ConvPair(3, 4, 1), ConvPair(3, 4, 1)
    weights = source.state_dict()
    del weights["act.act_lambda"]
    target.act.act_lambda = 0.3
    target.load_state_dict(weights, strict=True)
    assert target.act.act_lambda == 1.0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_lambda_survives_copies(copied):
    layer = ConvPair(3, 4, 1)
    layer.act.act_lambda = 0.7
    assert copied(layer).act.act_lambda == 0.7


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


def test_training_mode_inside_refuses_to_fuse():
    layer = ConvPair(4, 6, 1).eval()
    layer.second.train()
    with pytest.raises(RuntimeError, match="training mode"):
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
