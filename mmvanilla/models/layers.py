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

from mmvanilla.models.fading_relu import FadingReLU
from mmvanilla.models.fusion import (
    FusableLayer,
    conv_geometry,
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


def _writable_geometry(name: str) -> Any:
    """A property of a pair that is the first convolution's, and changes it when it is set."""

    def read(pair: ConvPair) -> Any:
        return getattr(pair.first.conv, name)

    def write(pair: ConvPair, value: Any) -> None:
        conv: Any = pair.first.conv
        geometry = {**conv_geometry(conv), name: value}
        with torch.device("meta"):
            changed: Any = nn.Conv2d(conv.in_channels, conv.out_channels, **geometry)
        for own in (*geometry, "_reversed_padding_repeated_twice"):
            setattr(conv, own, getattr(changed, own))

    return property(read, write, doc=f"The first convolution's {name}.")


def _fixed_geometry(name: str) -> Any:
    """A property of a pair that is the first convolution's and cannot be set."""
    return property(
        lambda pair: getattr(pair.first.conv, name), doc=f"The first convolution's {name}."
    )


def _no_one(name: str) -> str:
    return (
        f"a ConvPair has no {name} of its own, since it is two convolutions: take "
        f"first.conv.{name} and second.conv.{name}, or build this layer without pairs"
    )


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
        kernel_size: Kernel of the first convolution in pixels; the second is 1×1.
        stride: Stride of the first convolution. Default: 1.
        padding: Padding of the first convolution. Default: 0.
        dilation: Dilation of the first convolution. Default: 1.
        groups: Number of groups of both convolutions. Default: 1.
        bias: Whether the second convolution has a bias (the first always has). Default: True.
        padding_mode: Padding mode of the first convolution. Default: ``'zeros'``.
        mid_channels: Channels between the two; None: ``out_channels``.
        norm_cfg: The norm between the two. Default: BN; eps is 1e-6 unless it says otherwise.
        last_norm: Whether the same norm also follows the second convolution. None: only where
            ``bias`` is True, since a network that asks for no bias brings a norm of its own.
        init_cfg: Config of the initialisation, as in every mmengine module.
        deploy: Build the plain ``nn.Conv2d`` that fusing this pair gives, with a bias, instead of
            the pair: ``ConvPair(…, deploy=True)`` is no ``ConvPair``. Default: False.

    Attributes:
        stride, padding, dilation, padding_mode: Geometry of the first convolution. Networks that
            change it on a convolution they were given (MMSegmentation's MobileNetV3) change it
            here too.
        in_channels, out_channels, kernel_size, groups, transposed, output_padding: As those of a
            convolution, but fixed.

    Raises:
        AttributeError: ``weight`` or ``bias`` is read or set; a pair has two of each.
    """

    stride = _writable_geometry("stride")
    padding = _writable_geometry("padding")
    dilation = _writable_geometry("dilation")
    padding_mode = _writable_geometry("padding_mode")
    kernel_size = _fixed_geometry("kernel_size")
    groups = _fixed_geometry("groups")
    in_channels = _fixed_geometry("in_channels")
    transposed = _fixed_geometry("transposed")
    output_padding = _fixed_geometry("output_padding")

    def __new__(cls, *args: Any, deploy: bool = False, **kwargs: Any) -> Any:
        """A pair, or with ``deploy`` the plain convolution."""
        if not deploy:
            return super().__new__(cls)
        # Subclasses may choose the geometry themselves, so ask one that has no weights.
        with torch.device("meta"):
            pair = super().__new__(cls)
            pair.__init__(*args, **kwargs)
        return plain_conv(pair.in_channels, pair.out_channels, **conv_geometry(pair.geometry))

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
        deploy: bool = False,
    ) -> None:
        assert not deploy, "__new__ has built a plain convolution"
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
        self._scale_as_kaiming()

    def _scale_as_kaiming(self) -> None:
        """Give both convolutions the variance that mmcv's ``ConvModule`` gives its convolution.

        ``ConvModule`` leaves a layer alone that has ``init_weights``, as every mmengine module
        does, so that nobody else would do it. Nothing is drawn: PyTorch's numbers are scaled.
        """
        for conv in (self.first.conv, self.second.conv):
            fan_in, fan_out = conv.weight[0].numel(), len(conv.weight) * conv.weight[0, 0].numel()
            with torch.no_grad():
                # From a variance of 1 / (3 fan_in) to one of 2 / fan_out.
                conv.weight.mul_((6 * fan_in / fan_out) ** 0.5)
                if conv.bias is not None:
                    conv.bias.zero_()

    def __getattr__(self, name: str) -> Any:
        if name in ("weight", "bias"):
            raise AttributeError(_no_one(name))
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("weight", "bias"):
            raise AttributeError(_no_one(name))
        super().__setattr__(name, value)

    @property
    def out_channels(self) -> int:
        """C_out, that of the second convolution."""
        return self.second.conv.out_channels

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
