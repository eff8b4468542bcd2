"""Modules with the names and shapes of the authors' VanillaNet; they have no forward.

The names come out of the module tree, so that they do not depend on the table they check.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def _conv_norm(in_channels: int, out_channels: int, kernel_size: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, kernel_size), nn.BatchNorm2d(out_channels)]


def _activation(channels: int, act_num: int, deploy: bool) -> nn.Module:
    module = nn.Module()
    size = 2 * act_num + 1
    module.weight = nn.Parameter(torch.randn(channels, 1, size, size))
    if deploy:
        module.bias = nn.Parameter(torch.randn(channels))
    else:
        module.bn = nn.BatchNorm2d(channels)
    return module


def authors_model(
    dims: Sequence[int], act_num: int = 3, num_classes: int | None = None, deploy: bool = False
) -> nn.Module:
    model = nn.Module()
    if deploy:
        model.stem = nn.Sequential(nn.Conv2d(3, dims[0], 4), _activation(dims[0], act_num, True))
    else:
        model.stem1 = nn.Sequential(*_conv_norm(3, dims[0], 4))
        model.stem2 = nn.Sequential(
            *_conv_norm(dims[0], dims[0]), _activation(dims[0], act_num, False)
        )
    model.stages = nn.ModuleList()
    for before, after in zip(dims[:-1], dims[1:], strict=True):
        stage = nn.Module()
        if deploy:
            stage.conv = nn.Conv2d(before, after, 1)
        else:
            stage.conv1 = nn.Sequential(*_conv_norm(before, before))
            stage.conv2 = nn.Sequential(*_conv_norm(before, after))
        stage.act = _activation(after, act_num, deploy)
        model.stages.append(stage)
    if num_classes is not None:
        pool = [nn.AdaptiveAvgPool2d(1), nn.Dropout()]
        if deploy:
            model.cls = nn.Sequential(*pool, nn.Conv2d(dims[-1], num_classes, 1))
        else:
            model.cls1 = nn.Sequential(*pool, *_conv_norm(dims[-1], num_classes))
            model.cls2 = nn.Sequential(nn.Conv2d(num_classes, num_classes, 1))
    return model


def authors_weights(
    dims: Sequence[int], act_num: int = 3, num_classes: int | None = None, deploy: bool = False
) -> dict[str, Tensor]:
    """A state dict of random numbers, norms included."""
    weights = authors_model(dims, act_num, num_classes, deploy).state_dict()
    for key, tensor in weights.items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + (0.5 if key.endswith("var") else -0.5))
    return dict(weights)
