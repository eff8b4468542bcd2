"""Two forms are compared where they are, in the type that they have."""

import copy

import pytest
import torch

from mmvanilla import VanillaNet, fuse_model
from mmvanilla.deploy.comparison import first_mismatch, largest_difference
from tests.helpers import TINY, randomise


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_fused_form_is_compared_in_float64_and_on_any_device(device):
    net = randomise(VanillaNet(TINY)).double().to(device).eval()
    fused = copy.deepcopy(net)
    fuse_model(fused, inplace=True)
    assert largest_difference(net, fused, (64, 96)) < 1e-9
    assert first_mismatch(fused, copy.deepcopy(fused)) is None
    with torch.no_grad():
        fused.stem.conv.weight.add_(0.1)
    assert largest_difference(net, fused, (64, 96)) > 1e-3
