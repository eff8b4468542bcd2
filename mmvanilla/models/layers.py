"""Convolutions that are trained in one form and run in a plain one (paper, section 3.1).

Each :class:`FusableLayer` here becomes one ``nn.Conv2d`` when the model is fused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional

from mmvanilla.models.fusion import (
    FusableLayer,
    merge_pointwise,
    read_conv_norm,
    require_running_stats,
)

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


class FadingReLU(nn.Module):
    """The activation inside a pair that fades to the identity: φλ(x) = (1 − λ)·ReLU(x) + λ·x.

    That is a leaky ReLU of slope λ (paper, equation 1, with λ rising from 0 to 1). At λ = 1 it
    returns its input itself: no kernel runs and no tensor is saved for backward.

    λ travels with the weights: the state dict has it as the 0-dim tensor ``act_lambda``, and
    weights without it, which no deep training left behind, set it to 1.

    Attributes:
        act_lambda: λ, from 0 (ReLU) to 1 (identity, the default). Set by ``DeepTrainingHook``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.act_lambda = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out. Overwrites ``x`` where λ < 1."""
        if self.act_lambda == 1.0:
            return x
        return functional.leaky_relu(x, negative_slope=self.act_lambda, inplace=True)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # A plain number in the module, so that reading it on a GPU waits for nothing; float64,
        # so that it comes back as it was.
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "act_lambda"] = torch.tensor(self.act_lambda, dtype=torch.float64)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        self.act_lambda = float(state_dict.pop(prefix + "act_lambda", 1.0))

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"act_lambda={self.act_lambda:g}"


class ConvNorm(FusableLayer):
    """A convolution and the norm behind it; fuses to one convolution with a bias.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: Of the convolution.
        bias: Whether the convolution has a bias of its own in training. Default: True.
        norm_cfg: The norm, or None for none. Only norms with running statistics can be fused.
        geometry: stride, padding, dilation, groups of the convolution.
        init_cfg: As in every mmengine module.
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


@MODELS.register_module()
class ConvPair(FusableLayer):
    """Deep training: one convolution, trained as two with a fading activation between.

    conv1 (k×k) → norm → φλ → conv2 (1×1) → norm. At λ = 1 the two are linear and merge into one
    k×k convolution, which is all that inference sees (paper, section 3.1).

    Its arguments begin as a convolution's do, so that ``conv_cfg=dict(type='ConvPair')`` turns the
    convolutions of a network that takes a ``conv_cfg`` into pairs.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: Of the first convolution; the second is 1×1.
        stride: Of the first convolution. Default: 1.
        padding: Of the first convolution. Default: 0.
        dilation: Of the first convolution. Default: 1.
        groups: Of both convolutions. Default: 1.
        bias: Whether the second convolution has a bias (the first always has). Default: True.
        padding_mode: Of the first convolution. Default: ``'zeros'``.
        mid_channels: Channels between the two; None: ``out_channels``.
        norm_cfg: The norm between the two. Default: BN with eps 1e-6.
        last_norm: Whether the same norm also follows the second convolution. None: only where
            ``bias`` is True, since a network that asks for no bias brings a norm of its own.
        init_cfg: As in every mmengine module.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        mid_channels: int | None = None,
        norm_cfg: dict[str, Any] | None = DEFAULT_NORM_CFG,
        last_norm: bool | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        mid_channels = out_channels if mid_channels is None else mid_channels
        last_norm = bias if last_norm is None else last_norm
        self.first = ConvNorm(
            in_channels,
            mid_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            padding_mode=padding_mode,
            norm_cfg=norm_cfg,
        )
        self.act = FadingReLU()
        self.second = ConvNorm(
            mid_channels,
            out_channels,
            1,
            groups=groups,
            bias=bias,
            norm_cfg=norm_cfg if last_norm else None,
        )
        # What a network reads off a convolution that it was given (mmcv's ConvModule does).
        first = self.first.conv
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.padding = first.kernel_size, first.stride, first.padding
        self.dilation, self.groups = first.dilation, groups
        self.transposed, self.output_padding = False, first.output_padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) in, (N, C_out, H', W') out."""
        return self.second(self.act(self.first(x)))

    @property
    def brings_no_bias(self) -> bool:
        """Whether the network asked for a convolution without bias and brings a norm of its own."""
        return self.second.conv.bias is None and self.second.norm is None

    @property
    def geometry(self) -> nn.Conv2d:
        """The first convolution: the second one is pointwise."""
        return self.first.conv

    def fused_tensors(self) -> tuple[Tensor, Tensor]:
        """The product of the two linear maps."""
        return merge_pointwise(
            *self.first.fused_tensors(), *self.second.fused_tensors(), groups=self.groups
        )

    def check_fusable(self) -> None:
        """Also refuses λ ≠ 1, where no single convolution equals the pair."""
        super().check_fusable()
        if self.act.act_lambda != 1.0:
            raise RuntimeError(
                f"cannot fuse at λ = {self.act.act_lambda:g}: the activation between the two "
                "convolutions has not faded to the identity (λ = 1); train to the end of the decay"
            )


class ShortcutConv(FusableLayer):
    """A convolution with a shortcut around it, added before any activation: one linear map.

    Args:
        conv: A pointwise :class:`ConvPair` or :class:`ConvNorm`.
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
        """That of the convolution inside."""
        return self.conv.geometry

    def fused_tensors(self) -> tuple[Tensor, Tensor]:
        """W + I, or W + W_shortcut."""
        weight, bias = self.conv.fused_tensors()
        if self.shortcut is None:
            eye = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
            return weight + eye[:, :, None, None], bias
        shortcut_weight, shortcut_bias = self.shortcut.fused_tensors()
        return weight + shortcut_weight, bias + shortcut_bias
