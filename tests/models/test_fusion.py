import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmvanilla.models.conv_pair import ConvNorm, ConvPair
from mmvanilla.models.fusion import count_fusable, fuse_model
from mmvanilla.models.fusion_algebra import fuse_conv_bn, merge_pointwise
from tests.helpers import randomise, relative_difference

EXACT = 1e-12
conv2d = nn.functional.conv2d


@settings(max_examples=30, deadline=None)
@given(
    groups=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    kernel_size=st.integers(1, 4),
    with_bias=st.booleans(),
)
def test_merge_pointwise_is_both_convolutions(groups, channels, kernel_size, with_bias):
    inside, mid, outside = (groups * count for count in channels)
    weight1 = torch.randn(mid, inside // groups, kernel_size, kernel_size, dtype=torch.float64)
    weight2 = torch.randn(outside, mid // groups, 1, 1, dtype=torch.float64)
    bias1 = torch.randn(mid, dtype=torch.float64)
    bias2 = torch.randn(outside, dtype=torch.float64) if with_bias else None
    x = torch.randn(2, inside, 7, 6, dtype=torch.float64)

    expected = conv2d(
        conv2d(x, weight1, bias1, padding=1, groups=groups), weight2, bias2, groups=groups
    )
    weight, bias = merge_pointwise(weight1, bias1, weight2, bias2, groups=groups)

    found = conv2d(x, weight, bias, padding=1, groups=groups)
    assert relative_difference(expected, found) < EXACT


def test_algebra_is_float64_inside():
    # 1 + 1e-9 is 1 in float32; the difference survives only where the inside is wider.
    vectors = [torch.tensor([value]) for value in (1e4, 1e4 - 1.0, 1.0)]
    weight, bias = fuse_conv_bn(torch.full((1, 1, 1, 1), 1e4), *vectors, None, None, 1e-9)
    assert weight.dtype == bias.dtype == torch.float32
    assert bias.item() == pytest.approx(1.0, rel=1e-6)


def test_fuse_model_replaces_layers_anywhere_and_leaves_the_original():
    model = nn.ModuleDict(
        dict(neck=nn.Sequential(ConvPair(3, 8, 1), nn.ReLU()), head=ConvNorm(8, 2, 3))
    )
    randomise(model).double().eval()
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    expected = model["head"](model["neck"](x))

    fused = fuse_model(model)

    assert isinstance(fused, nn.ModuleDict) and fused is not model
    assert type(fused["neck"][0]) is type(fused["head"]) is nn.Conv2d
    assert type(model["head"]) is ConvNorm
    assert relative_difference(expected, fused["head"](fused["neck"](x))) < EXACT
    assert count_fusable(model) == 2 and count_fusable(fused) == 0
    assert fuse_model(model, inplace=True) is model
    assert type(model["head"]) is nn.Conv2d


def test_nothing_to_fuse_warns_and_gives_the_model_back():
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
    with pytest.warns(
        UserWarning, match="nothing to fuse in this Sequential.*training form"
    ) as seen:
        same = fuse_model(plain)
    assert seen[0].filename == __file__
    assert same is not plain and list(same.state_dict()) == list(plain.state_dict())
    with pytest.warns(UserWarning, match="nothing to fuse"):
        assert fuse_model(plain, inplace=True) is plain
    assert count_fusable(plain) == 0 and count_fusable(ConvPair(3, 4, 1)) == 1


def test_a_refusal_leaves_the_model_whole():
    model = nn.Sequential(
        ConvPair(3, 4, 1), ConvNorm(4, 4, 1, norm_cfg=dict(type="GN", num_groups=1))
    )
    with pytest.raises(TypeError, match="GroupNorm"):
        fuse_model(model.eval(), inplace=True)
    assert type(model[0]) is ConvPair
    with pytest.raises(RuntimeError, match="training mode"):
        fuse_model(model.train(), inplace=True)
    with pytest.raises(ValueError, match="fuse()"):
        fuse_model(model[0].eval())
