"""A convolution with a norm, or with a shortcut, and the defaults of all layers.

Each :class:`~mmvanilla.models.fusion.FusableLayer` here becomes one ``nn.Conv2d`` when the model is
fused. The pair of convolutions of deep training is in :mod:`mmvanilla.models.conv_pair`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from mmvanilla.models.fusion import FusableLayer, read_conv_norm, require_running_stats

# The default of every norm_cfg in this package, with the eps of the authors.
DEFAULT_NORM_CFG: dict[str, Any] = dict(type="BN", eps=1e-6)

# The initialisation of the backbone and the head, unless init_cfg says otherwise.
DEFAULT_INIT_CFG: list[dict[str, Any]] = [
    dict(type="TruncNormal", layer="Conv2d", std=0.02, bias=0.0),
    dict(type="Constant", layer="_BatchNorm", val=1.0, bias=0.0),
]


def complete_norm_cfg(norm_cfg: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Complete the config of a norm with this package's defaults: batch norm, eps 1e-6.

    The default of mmcv for eps is 1e-5. Entries of ``norm_cfg`` take precedence.

    Args:
        norm_cfg: Config of a norm of any kind; None for no norm.

    Returns:
        A new dict, or None where ``norm_cfg`` is None.
    """
    return None if norm_cfg is None else {**DEFAULT_NORM_CFG, **norm_cfg}


def plain_conv(
    in_channels: int, out_channels: int, kernel_size: Any, bias: bool = True, **geometry: Any
) -> nn.Conv2d:
    """Build a convolution of the deploy form, as fusing returns it."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias, **geometry)


class ConvNorm(FusableLayer):
    """A convolution followed by a norm; it fuses to one convolution with a bias.

    Args:
        in_channels: Number of input channels, C_in.
        out_channels: Number of output channels, C_out.
        kernel_size: Kernel size of the convolution in pixels.
        bias: Whether the convolution has a bias of its own in training. Default: True.
        norm_cfg: Config of the norm; None for no norm. Only norms with running statistics can be
            fused.
        init_cfg: Config of the initialisation, as for every mmengine module.
        geometry: More arguments of the convolution: ``stride``, ``padding``, ``dilation``,
            ``groups`` and ``padding_mode``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        *,
        bias: bool = True,
        norm_cfg: dict[str, Any] | None = DEFAULT_NORM_CFG,
        init_cfg: Any = None,
        **geometry: Any,
    ) -> None:
        super().__init__(init_cfg)
        self.conv = plain_conv(in_channels, out_channels, kernel_size, bias=bias, **geometry)
        norm_cfg = complete_norm_cfg(norm_cfg)
        self.norm = None if norm_cfg is None else build_norm_layer(norm_cfg, out_channels)[1]

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W')."""
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)

    @property
    def geometry(self) -> nn.Conv2d:
        """The convolution itself."""
        return self.conv

    def fused_tensors(self) -> tuple[Tensor, Tensor]:
        """Fold the norm into the convolution."""
        return read_conv_norm(self.conv, self.norm)

    def check_fusable(self) -> None:
        """Refuse a norm without running statistics, too."""
        super().check_fusable()
        if self.norm is not None:
            require_running_stats(self.norm)


class ShortcutConv(FusableLayer):
    """A convolution with a shortcut that is added before any activation: one linear map.

    Args:
        conv: A pointwise :class:`~mmvanilla.models.conv_pair.ConvPair` or :class:`ConvNorm`.
        shortcut: A pointwise :class:`ConvNorm` that changes the number of channels. None: the
            shortcut is the identity.
    """

    def __init__(self, conv: FusableLayer, shortcut: ConvNorm | None = None) -> None:
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
        """Add the shortcut's weight to that of the convolution: W + I, or W + W_shortcut."""
        weight, bias = self.conv.fused_tensors()
        if self.shortcut is None:
            eye = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
            return weight + eye[:, :, None, None], bias
        shortcut_weight, shortcut_bias = self.shortcut.fused_tensors()
        return weight + shortcut_weight, bias + shortcut_bias
