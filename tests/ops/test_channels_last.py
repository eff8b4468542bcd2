"""MMCV's operators in models whose convolutions give channels_last."""

import copy
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import mmvanilla.ops
from mmvanilla.engine.channels_last import to_channels_last
from tests.helpers import randomise, relative_difference
from tests.ops.common import ours as ours
from tests.ops.common import random_rois

NAMES = ["RoIAlign", "DeformConv2dPack", "ModulatedDeformConv2dPack"]


class Network(nn.Module):
    """Two convolutions, and between them an operator on what the first one gives."""

    def __init__(self, name):
        from mmcv import ops

        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3)
        self.rois = random_rois(5, 2) if name.startswith("RoI") else None
        sizes = (7, 0.25) if name.startswith("RoI") else (8, 8, 3)
        self.operator = getattr(ops, name)(*sizes)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.operator(x) if self.rois is None else self.operator(x, self.rois))


@pytest.fixture(params=NAMES)
def network(request):
    torch.manual_seed(0)
    return randomise(Network(request.param)).eval()


@pytest.mark.usefixtures("ours")
def test_the_stand_in_computes_the_same_in_both_orders(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmcv._ext", mmvanilla.ops)
    other = copy.deepcopy(network)
    weights = [parameter for parameter in other.parameters() if parameter.dim() == 4]
    assert to_channels_last(other) == len(weights) >= 2
    found = []
    for model in (network, other):
        x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
        out = model(x)
        out.square().sum().backward()
        found.append([out.detach(), x.grad, *(p.grad for p in model.parameters())])
    for expected, got in zip(*found, strict=True):
        assert expected.abs().max() > 0
        assert relative_difference(expected, got) < 1e-5


def test_a_model_with_compiled_operators_keeps_the_usual_strides(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmcv._ext", SimpleNamespace(__file__="_ext.so"))
    said = []
    monkeypatch.setattr("mmvanilla.engine.channels_last.print_log", lambda *a: said.append(a[0]))
    before = copy.deepcopy(network.state_dict())
    assert to_channels_last(network) == 0
    assert len(said) == 1 and said[0].startswith("Network: it stays in the usual memory format")
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) and value.stride() == before[name].stride()
    assert to_channels_last(network.first) == 1  # without an operator, nothing stands in the way
