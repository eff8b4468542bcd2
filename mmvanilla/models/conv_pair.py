"""Deep training: a convolution that is trained as two (paper, section 3.1)."""

from __future__ import annotations

import logging
import sys
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmvanilla.models.fading_relu import FadingReLU
from mmvanilla.models.fusion import FusableLayer, conv_geometry
from mmvanilla.models.fusion_algebra import merge_pointwise
from mmvanilla.models.layers import DEFAULT_NORM_CFG, ConvNorm, plain_conv

# mmengine's functions that initialise one layer look for its weight, and pass over it without one.
_INITIALISERS = "mmengine.model.weight_init"


def _writable_geometry(name: str) -> Any:
    """Make a property of a pair that reads and sets an attribute of the first convolution."""

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
    """Make a property of a pair that only reads an attribute of the first convolution."""
    return property(
        lambda pair: getattr(pair.first.conv, name), doc=f"The first convolution's {name}."
    )


def _no_one(name: str) -> str:
    return (
        f"a ConvPair has no {name} of its own, since it has two convolutions: use "
        f"first.conv.{name} and second.conv.{name}, or build this layer without pairs"
    )


@MODELS.register_module()
class ConvPair(FusableLayer):
    """Deep training: a convolution that is trained as two, with a fading activation between them.

    conv1 (k×k) → norm → φλ → conv2 (1×1) → norm. At λ = 1 the two are linear and merge into one
    k×k convolution for inference (paper, section 3.1).

    The first arguments are those of a convolution, so that ``conv_cfg=dict(type='ConvPair')`` turns
    the convolutions of a network that takes a ``conv_cfg`` into pairs.

    Args:
        in_channels: Number of input channels, C_in.
        out_channels: Number of output channels, C_out.
        kernel_size: Kernel size of the first convolution in pixels; the second is 1×1.
        stride: Stride of the first convolution. Default: 1.
        padding: Padding of the first convolution in pixels. Default: 0.
        dilation: Dilation of the first convolution. Default: 1.
        groups: Number of groups of both convolutions. Default: 1.
        bias: Whether the second convolution has a bias (the first always has). Default: True.
        padding_mode: Padding mode of the first convolution. Default: ``'zeros'``.
        mid_channels: Number of channels between the two convolutions. None: ``out_channels``.
        norm_cfg: Config of the norm between the two. Default: BN; eps is 1e-6 if it is not given.
        last_norm: Whether a norm of the same kind also follows the second convolution. None: only
            if ``bias`` is True, since a network that asks for no bias brings its own norm.
        init_cfg: Config of the initialisation, as for every mmengine module.
        deploy: Whether to build the plain ``nn.Conv2d`` that fusing this pair gives, with a bias,
            instead of the pair: ``ConvPair(…, deploy=True)`` is an ``nn.Conv2d``. Default: False.

    Attributes:
        stride, padding, dilation, padding_mode: Geometry of the first convolution. They can be
            set, as some networks do with their convolutions (MMSegmentation's MobileNetV3).
        in_channels, out_channels, kernel_size, groups, transposed, output_padding: Attributes of
            a convolution; they cannot be set.

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
        """Build a pair or, with ``deploy``, the plain convolution."""
        if not deploy:
            return super().__new__(cls)
        # A subclass may choose the geometry itself, so build one on the meta device and ask it.
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

        ``ConvModule`` does not initialise a layer that has ``init_weights``, as every mmengine
        module has. No new random numbers are drawn: those of PyTorch are scaled.
        """
        for conv in (self.first.conv, self.second.conv):
            fan_in, fan_out = conv.weight[0].numel(), len(conv.weight) * conv.weight[0, 0].numel()
            with torch.no_grad():
                # From a variance of 1 / (3 fan_in) to one of 2 / fan_out.
                conv.weight.mul_((6 * fan_in / fan_out) ** 0.5)
                if conv.bias is not None:
                    conv.bias.zero_()

    def __getattr__(self, name: str) -> Any:
        if name not in ("weight", "bias"):
            return super().__getattr__(name)
        caller = sys._getframe(1)
        if caller.f_globals.get("__name__") == _INITIALISERS:
            if caller.f_code.co_name == "constant_init" and caller.f_locals.get("val") == 0:
                # With the second one at zero the pair gives zeros, and still learns.
                return getattr(self.second.conv, name)
            if name == "weight":
                print_log(
                    f"{caller.f_code.co_name} does not reach a ConvPair, which has two weights: it "
                    "keeps its own initialisation; for another one give init_cfg",
                    "current",
                    logging.WARNING,
                )
        raise AttributeError(_no_one(name))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("weight", "bias"):
            raise AttributeError(_no_one(name))
        super().__setattr__(name, value)

    @property
    def out_channels(self) -> int:
        """Number of output channels, which the second convolution has."""
        return self.second.conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W')."""
        return self.second(self.act(self.first(x)))

    @property
    def geometry(self) -> nn.Conv2d:
        """The first convolution, since the second one is pointwise."""
        return self.first.conv

    def fused_tensors(self) -> tuple[Tensor, Tensor]:
        """Merge the two convolutions into one."""
        return merge_pointwise(
            *self.first.fused_tensors(), *self.second.fused_tensors(), groups=self.groups
        )

    def check_fusable(self) -> None:
        """Refuse λ ≠ 1, too: then no single convolution equals the pair."""
        super().check_fusable()
        for act in self.modules():
            if isinstance(act, FadingReLU) and act.act_lambda != 1.0:
                raise RuntimeError(
                    f"cannot fuse at λ = {act.act_lambda:g}: the activation between the two "
                    "convolutions has not faded to the identity (λ = 1); train to the end of the "
                    "decay"
                )
