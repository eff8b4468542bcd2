"""VanillaNets with the two kinds of shortcut of the paper's ablation."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmvanilla.models.block import VanillaBlock
from mmvanilla.models.conv_pair import DEFAULT_NORM_CFG, ConvNorm
from mmvanilla.models.fusion import FusableLayer
from mmvanilla.models.vanillanet import VanillaNet


class ShortcutConv(FusableLayer):
    """A pointwise convolution with a shortcut (None: the identity): one linear map."""

    def __init__(self, conv: FusableLayer, shortcut: ConvNorm | None) -> None:
        super().__init__()
        self.conv = conv
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H, W)."""
        return self.conv(x) + (x if self.shortcut is None else self.shortcut(x))

    @property
    def geometry(self) -> nn.Conv2d:
        """The geometry of the convolution inside."""
        return self.conv.geometry

    def fused_tensors(self) -> tuple[Tensor, Tensor]:
        """Add the weights: W + I, or W + W_shortcut."""
        weight, bias = self.conv.fused_tensors()
        if self.shortcut is None:
            eye = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
            return weight + eye[:, :, None, None], bias
        shortcut_weight, shortcut_bias = self.shortcut.fused_tensors()
        return weight + shortcut_weight, bias + shortcut_bias


class EarlyShortcutBlock(VanillaBlock):
    """A layer that adds its input to its convolution's output, and fuses to a plain layer."""

    def __init__(
        self, in_channels: int, out_channels: int, deploy: bool = False, **options: Any
    ) -> None:
        super().__init__(in_channels, out_channels, deploy=deploy, **options)
        if not deploy:
            projection = _projection((in_channels, out_channels), deploy, options)
            self.conv = ShortcutConv(self.conv, projection)


class LateShortcutBlock(VanillaBlock):
    """A layer that adds its pooled input to its output; the shortcut stays when it is fused."""

    def __init__(
        self, in_channels: int, out_channels: int, deploy: bool = False, **options: Any
    ) -> None:
        super().__init__(in_channels, out_channels, deploy=deploy, **options)
        self.shortcut = _projection((in_channels, out_channels), deploy, options)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W')."""
        late = x if self.shortcut is None else self.shortcut(x)
        return super().forward(x) + (late if self.pool is None else self.pool(late))


def _projection(channels: tuple[int, int], deploy: bool, options: dict[str, Any]) -> Any:
    """Build the 1×1 convolution of a shortcut that changes the channels; None for the identity."""
    if channels[0] == channels[1]:
        return None
    norm_cfg = options.get("norm_cfg", DEFAULT_NORM_CFG)
    return nn.Conv2d(*channels, 1) if deploy else ConvNorm(*channels, 1, norm_cfg=norm_cfg)


@MODELS.register_module()
class EarlyShortcutVanillaNet(VanillaNet):
    """A VanillaNet with a shortcut in front of each activation, which fuses to a plain one."""

    block_type = EarlyShortcutBlock


@MODELS.register_module()
class LateShortcutVanillaNet(VanillaNet):
    """A VanillaNet with a shortcut around each layer behind the stem, which stays when fused."""

    block_type = LateShortcutBlock
