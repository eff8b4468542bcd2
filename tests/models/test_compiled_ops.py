"""MMCV's operators compute the same in models whose convolutions give channels_last."""

import copy

import pytest
import torch
from torch import nn

from mmvanilla.engine.channels_last import to_channels_last
from mmvanilla.models.compiled_ops import guard_compiled_ops
from tests.helpers import randomise, relative_difference
from tests.ops.common import needs_compiled

pytest.importorskip("mmcv._ext")

ROIS = torch.tensor([[0, 10.0, 12, 60, 62], [1, 3, 3, 60, 50]])


class Regions(nn.Module):
    """A convolution, and an operator on regions of what it gives."""

    def __init__(self, operator, rois):
        super().__init__()
        self.conv, self.operator, self.rois = nn.Conv2d(3, 8, 3, padding=1), operator, rois

    def forward(self, x):
        return self.operator(self.conv(x), rois=self.rois)


def networks():
    from mmcv.ops import ModulatedDeformConv2dPack, RoIAlign, RoIAlignRotated

    angle = torch.full((2, 1), 0.3)
    return {
        "RoIAlign": Regions(RoIAlign(7, 0.25, 0), ROIS),
        "RoIAlignRotated": Regions(RoIAlignRotated((7, 7), 0.25, 2), torch.cat([ROIS, angle], 1)),
        "ModulatedDeformConv2dPack": nn.Sequential(
            nn.Conv2d(3, 8, 3), ModulatedDeformConv2dPack(8, 8, 3, padding=1), nn.Conv2d(8, 4, 3)
        ),
    }


@pytest.fixture(
    params=[
        "RoIAlign",
        pytest.param("RoIAlignRotated", marks=needs_compiled),  # no stand-in has it
        "ModulatedDeformConv2dPack",
    ]
)
def network(request):
    return randomise(networks()[request.param]).eval()


def test_outputs_and_gradients_are_the_same_in_channels_last(network):
    other = copy.deepcopy(network)
    to_channels_last(other)
    to_channels_last(other)
    found = []
    for model in (network, other):
        x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
        out = model(x)
        out.square().sum().backward()
        found.append([out.detach(), x.grad, *(p.grad for p in model.parameters())])
    for expected, got in zip(*found, strict=True):
        assert relative_difference(expected, got) < 1e-5
    guards = [len(module._forward_pre_hooks) for module in other.modules()]
    assert sum(guards) == 1  # one operator, guarded once


def test_weights_of_operators_stay_plain():
    model = networks()["ModulatedDeformConv2dPack"]
    kept = guard_compiled_ops(model)
    assert kept == {model[1], model[1].conv_offset}
    assert to_channels_last(model) == 2  # the two convolutions
    assert model[1].weight.is_contiguous() and model[1].conv_offset.weight.is_contiguous()
