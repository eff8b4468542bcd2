"""The paper's network written down plainly, as a reference without optimisations.

The training form has two convolutions and two norms in each layer, and computes every leaky ReLU,
also at λ = 1. The deploy form has convolution, pooling, ReLU and depthwise convolution. Both have
the keys of the authors' checkpoints, so that their weights convert to those of our classifier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmvanilla.models.archs import Arch

_EPS = 1e-6
_NUM_CLASSES = 1000
_ACT_NUM = 3


class Activation(nn.Module):
    """ReLU and a depthwise convolution, followed by batch norm in the training form."""

    def __init__(self, channels: int, deploy: bool) -> None:
        super().__init__()
        kernel = 2 * _ACT_NUM + 1
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel, kernel))
        nn.init.trunc_normal_(self.weight, std=0.02)
        self.bias = nn.Parameter(torch.zeros(channels)) if deploy else None
        self.bn = nn.Identity() if deploy else nn.BatchNorm2d(channels, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        x = functional.conv2d(
            torch.relu(x), self.weight, self.bias, padding=_ACT_NUM, groups=len(self.weight)
        )
        return self.bn(x)


def _conv_norm(*args: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(*args), nn.BatchNorm2d(args[1], eps=_EPS))


class Stage(nn.Module):
    """A pair of 1×1 convolutions, or one in the deploy form, then pooling and activation."""

    def __init__(self, channels: int, out_channels: int, stride: int, deploy: bool) -> None:
        super().__init__()
        self.deploy = deploy
        if deploy:
            self.conv = nn.Conv2d(channels, out_channels, 1)
        else:
            self.conv1 = _conv_norm(channels, channels, 1)
            self.conv2 = _conv_norm(channels, out_channels, 1)
        self.pool = nn.MaxPool2d(stride) if stride > 1 else nn.Identity()
        self.act = Activation(out_channels, deploy)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        if self.deploy:
            return self.act(self.pool(self.conv(x)))
        x = self.conv2(functional.leaky_relu(self.conv1(x), 1.0))
        return self.act(self.pool(x))


class ReferenceVanillaNet(nn.Module):
    """A plain VanillaNet classifier of 1000 classes, with a 7×7 series activation (n = 3).

    Args:
        arch: Variant without adaptive pooling.
        deploy: Whether to build the deploy form instead of the training form. Default: False.

    Raises:
        ValueError: ``arch`` pools adaptively.
    """

    def __init__(self, arch: Arch, deploy: bool = False) -> None:
        super().__init__()
        if arch.is_adaptive:
            raise ValueError("the reference network does not pool adaptively; take another arch")
        self.deploy = deploy
        dims = arch.dims
        stem = (3, dims[0], 4, arch.stem_stride, arch.stem_padding)
        if deploy:
            self.stem = nn.Sequential(nn.Conv2d(*stem), Activation(dims[0], deploy))
        else:
            self.stem1 = _conv_norm(*stem)
            self.stem2 = _conv_norm(dims[0], dims[0], 1).append(Activation(dims[0], deploy))
        self.stages = nn.ModuleList(
            Stage(before, after, stride, deploy)
            for before, after, stride in zip(dims, dims[1:], arch.strides, strict=False)
        )
        head = (nn.AdaptiveAvgPool2d(1), nn.Dropout(0.0))
        if deploy:
            self.cls = nn.Sequential(*head, nn.Conv2d(dims[-1], _NUM_CLASSES, 1))
        else:
            self.cls1 = nn.Sequential(*head, *_conv_norm(dims[-1], _NUM_CLASSES, 1))
            self.cls2 = nn.Sequential(nn.Conv2d(_NUM_CLASSES, _NUM_CLASSES, 1))

    def backbone(self, x: Tensor) -> Tensor:
        """Map images, (N, 3, H, W), to the last stage's output, (N, C, H', W')."""
        x = self.stem(x) if self.deploy else self.stem2(functional.leaky_relu(self.stem1(x), 1.0))
        for stage in self.stages:
            x = stage(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Map images, (N, 3, H, W), to logits, (N, 1000)."""
        x = self.backbone(x)
        if self.deploy:
            return self.cls(x).flatten(1)
        return self.cls2(functional.leaky_relu(self.cls1(x), 1.0)).flatten(1)
