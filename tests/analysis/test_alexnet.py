"""AlexNet for the ablations: with single convolutions and with pairs."""

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmvanilla import count_fusable, fuse_model
from mmvanilla.analysis.alexnet import AlexNetOfPairs
from mmvanilla.models.conv_pair import ConvPair
from tests.helpers import randomise, relative_difference


def test_has_the_convolutions_of_alexnet():
    with torch.device("meta"):
        net = MODELS.build(dict(type="AlexNetOfPairs"))
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [64, 192, 384, 256, 256]
    assert [conv.kernel_size[0] for conv in convs] == [5, 5, 3, 3, 3]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    (features,) = net(torch.empty(2, 3, 28, 28, device="meta"))
    assert features.shape == (2, 256, 2, 2)
    assert net(torch.empty(2, 3, 15, 15, device="meta"))[0].shape == (2, 256, 1, 1)


@pytest.mark.parametrize("norm_cfg", [None, dict(type="BN")])
@torch.no_grad()
def test_fuses_to_the_same_network_as_single_convolutions(norm_cfg):
    options = dict(in_channels=1, width_mult=1 / 8, norm_cfg=norm_cfg)
    deep = randomise(AlexNetOfPairs(conv_cfg=dict(type="ConvPair"), **options)).double().eval()
    assert sum(isinstance(module, ConvPair) for module in deep.modules()) == 5
    assert count_fusable(deep) == 5
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    fused = fuse_model(deep)
    assert relative_difference(deep(x)[0], fused(x)[0]) < 1e-9
    single = AlexNetOfPairs(**options)
    kinds = [nn.Conv2d, nn.ReLU, nn.MaxPool2d]
    found = [[type(m) for m in net.modules() if type(m) in kinds] for net in (fused, single)]
    assert found[0] == found[1]
    norms = 5 * (norm_cfg is not None)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in single.modules()) == norms
