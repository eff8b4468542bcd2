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

# The authors' eps; every default of norm_cfg in this package is this one.
DEFAULT_NORM_CFG: dict[str, Any] = dict(type="BN", eps=1e-6)

# How the backbone and the head start training unless init_cfg says otherwise.
DEFAULT_INIT_CFG: list[dict[str, Any]] = [
    dict(type="TruncNormal", layer="Conv2d", std=0.02, bias=0.0),
    dict(type="Constant", layer="_BatchNorm", val=1.0, bias=0.0),
]


def complete_norm_cfg(norm_cfg: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Fill a norm's config with this package's defaults: batch norm, eps 1e-6.

    mmcv's own default for eps is 1e-5. What ``norm_cfg`` itself says wins.

    Args:
        norm_cfg: The config of a norm of any kind; None for no norm.

    Returns:
        A new dict, or None where ``norm_cfg`` is None.
    """
    return None if norm_cfg is None else {**DEFAULT_NORM_CFG, **norm_cfg}


def plain_conv(
    in_channels: int, out_channels: int, kernel_size: Any, bias: bool = True, **geometry: Any
) -> nn.Conv2d:
    """The convolution of the deploy form: what fusing returns and ``deploy=True`` builds."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias, **geometry)


class ConvNorm(FusableLayer):
    """A convolution and the norm behind it; fuses to one convolution with a bias.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: Kernel of the convolution in pixels.
        bias: Whether the convolution has a bias of its own in training. Default: True.
        norm_cfg: The norm, or None for none. Only norms with running statistics can be fused.
        init_cfg: Config of the initialisation, as in every mmengine module.
        geometry: stride, padding, dilation, groups, padding_mode of the convolution.
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
        """(N, C_in, H, W) in, (N, C_out, H', W') out."""
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)

    @property
    def geometry(self) -> nn.Conv2d:
        """The convolution itself."""
        return self.conv

    def fused_tensors(self) -> tuple[Tensor, Tensor]:
        """The convolution with the norm folded in."""
        return read_conv_norm(self.conv, self.norm)

    def check_fusable(self) -> None:
        """Also refuses a norm without running statistics."""
        super().check_fusable()
        if self.norm is not None:
            require_running_stats(self.norm)


class ShortcutConv(FusableLayer):
    """A convolution with a shortcut around it, added before any activation: one linear map.

    Args:
        conv: A pointwise :class:`~mmvanilla.models.conv_pair.ConvPair` or :class:`ConvNorm`.
        shortcut: A pointwise :class:`ConvNorm` that changes the channels; None: the identity.
    """

    def __init__(self, conv: FusableLayer, shortcut: ConvNorm | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) in, (N, C_out, H, W) out."""
        return self.conv(x) + (x if self.shortcut is None else self.shortcut(x))

    @property
    def geometry(self) -> nn.Conv2d:
        """The geometry of the convolution inside."""
        return self.conv.geometry

    def fused_tensors(self) -> tuple[Tensor, Tensor]:
        """W + I, or W + W_shortcut."""
        weight, bias = self.conv.fused_tensors()
        if self.shortcut is None:
            eye = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
            return weight + eye[:, :, None, None], bias
        shortcut_weight, shortcut_bias = self.shortcut.fused_tensors()
        return weight + shortcut_weight, bias + shortcut_bias
