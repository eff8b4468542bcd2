"""A plain implementation of the paper's network, as a reference without optimisations.

The training form has two convolutions and two norms in each layer, and computes every leaky ReLU,
also at λ = 1. The deploy form has convolution, pooling, ReLU and depthwise convolution, all in
NCHW. ``mmvanilla benchmark`` compares our networks with it. Its weights come from a classifier of
ours, so that both compute the same function.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmvanilla.models.archs import Arch

_EPS = 1e-6
_NUM_CLASSES = 1000
_ACT_NUM = 3


class ReferenceActivation(nn.Module):
    """ReLU and a depthwise convolution, followed by batch norm in the training form."""

    def __init__(self, channels: int, act_num: int, deploy: bool) -> None:
        super().__init__()
        self.padding = act_num
        kernel = 2 * act_num + 1
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(channels)) if deploy else None
        self.norm = None if deploy else nn.BatchNorm2d(channels, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        x = functional.conv2d(
            torch.relu(x), self.weight, self.bias, padding=self.padding, groups=len(self.weight)
        )
        return x if self.norm is None else self.norm(x)


class ReferencePair(nn.Module):
    """Two convolutions with norms and a leaky ReLU between; in deploy form one convolution."""

    def __init__(
        self,
        channels: tuple[int, int, int],
        kernel: int,
        stride: int,
        padding: int,
        deploy: bool,
        last_norm: bool = True,
    ) -> None:
        super().__init__()
        before, between, after = channels
        self.act_lambda = 1.0
        self.deploy = deploy
        if deploy:
            self.conv = nn.Conv2d(before, after, kernel, stride, padding)
            return
        self.conv1 = nn.Conv2d(before, between, kernel, stride, padding)
        self.norm1 = nn.BatchNorm2d(between, eps=_EPS)
        self.conv2 = nn.Conv2d(between, after, 1)
        self.norm2 = nn.BatchNorm2d(after, eps=_EPS) if last_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W')."""
        if self.deploy:
            return self.conv(x)
        x = functional.leaky_relu(self.norm1(self.conv1(x)), self.act_lambda)
        return self.norm2(self.conv2(x))


class ReferenceBackbone(nn.Module):
    """Stem and blocks of a plain VanillaNet.

    Args:
        arch: Variant without adaptive pooling.
        deploy: Whether to build the deploy form instead of the training form.
    """

    def __init__(self, arch: Arch, deploy: bool) -> None:
        super().__init__()
        dims = arch.dims
        self.stem = ReferencePair(
            (3, dims[0], dims[0]), 4, arch.stem_stride, arch.stem_padding, deploy
        )
        self.stem_act = ReferenceActivation(dims[0], _ACT_NUM, deploy)
        self.pairs = nn.ModuleList()
        self.pools = nn.ModuleList()
        self.acts = nn.ModuleList()
        for before, after, stride in zip(dims, dims[1:], arch.strides, strict=False):
            self.pairs.append(ReferencePair((before, before, after), 1, 1, 0, deploy))
            self.pools.append(nn.MaxPool2d(stride) if stride > 1 else nn.Identity())
            self.acts.append(ReferenceActivation(after, _ACT_NUM, deploy))

    def forward(self, x: Tensor) -> Tensor:
        """Map images, (N, 3, H, W), to the last layer's output, (N, C, H', W')."""
        x = self.stem_act(self.stem(x))
        for pair, pool, act in zip(self.pairs, self.pools, self.acts, strict=True):
            x = act(pool(pair(x)))
        return x


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
        self.backbone = ReferenceBackbone(arch, deploy)
        channels = (arch.dims[-1], _NUM_CLASSES, _NUM_CLASSES)
        self.head = ReferencePair(channels, 1, 1, 0, deploy, last_norm=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map images, (N, 3, H, W), to logits, (N, 1000)."""
        x = functional.adaptive_avg_pool2d(self.backbone(x), 1)
        return self.head(x).flatten(1)

    def load_ours(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the weights of a classifier of ours in the same form.

        Args:
            state_dict: Weights of the classifier, with keys below ``backbone.`` and ``head.``.

        Raises:
            RuntimeError: The weights are those of another form or arch.
        """
        renamed = {}
        for key, value in state_dict.items():
            if not key.endswith("act_lambda"):
                renamed[_reference_key(key)] = value
        self.load_state_dict(renamed)


def _reference_key(key: str) -> str:
    """Translate a key of our classifier to a key of the reference."""
    parts = key.split(".")
    if parts[0] == "head":  # head.conv.…
        prefix, rest = "head", parts[2:]
    elif parts[1] == "stem":  # backbone.stem.conv.… or backbone.stem.act.…
        prefix, rest = f"backbone.{'stem' if parts[2] == 'conv' else 'stem_act'}", parts[3:]
    else:  # backbone.blocks.I.conv.… or backbone.blocks.I.act.…
        kind = "pairs" if parts[3] == "conv" else "acts"
        prefix, rest = f"backbone.{kind}.{parts[2]}", parts[4:]
    if prefix.startswith(("backbone.acts", "backbone.stem_act")):
        # In deploy form conv.weight and conv.bias, else conv.conv.weight and conv.norm.…
        inner = rest[1:]
        return ".".join([prefix, *(inner[1:] if inner[0] == "conv" else inner)])
    if rest[0] in ("first", "second"):
        number = "1" if rest[0] == "first" else "2"
        return ".".join([prefix, rest[1] + number, rest[2]])
    return ".".join([prefix, "conv", *rest])
