"""Deep training (paper, section 3.1): a convolution that is trained as two.

:class:`ConvNorm` is a convolution with a norm; :class:`ConvPair` is two of them with a fading
activation in between. Each becomes one ``nn.Conv2d`` when the model is fused.
"""

from __future__ import annotations

from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmvanilla.models.act_lambda import FadingReLU
from mmvanilla.models.fusion import (
    GEOMETRY,
    FusableLayer,
    conv_geometry,
    read_conv_norm,
    require_running_stats,
)
from mmvanilla.models.fusion_algebra import merge_pointwise

# The default of every norm_cfg in this package, with the eps of the authors; mmcv's is 1e-5.
DEFAULT_NORM_CFG: dict[str, Any] = dict(type="BN", eps=1e-6)


class ConvNorm(FusableLayer):
    """A convolution followed by a norm. The arguments are those of ``nn.Conv2d``, and these.

    Args:
        norm_cfg: Config of the norm, which :data:`DEFAULT_NORM_CFG` completes; None for no norm.
            Only norms with running statistics can be fused.
        init_cfg: Config of the initialisation, as for every mmengine module.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        *,
        norm_cfg: dict[str, Any] | None = DEFAULT_NORM_CFG,
        init_cfg: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, **options)
        self.norm = None
        if norm_cfg is not None:
            self.norm = build_norm_layer({**DEFAULT_NORM_CFG, **norm_cfg}, out_channels)[1]

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


# Attributes of a pair that are those of its first convolution.
_OF_FIRST = (*GEOMETRY, "in_channels", "transposed", "output_padding")


@MODELS.register_module()
class ConvPair(FusableLayer):
    """Deep training: a convolution that is trained as two, with a fading activation between them.

    conv1 (k×k) → norm → φλ → conv2 (1×1) → norm. At λ = 1 the two are linear and merge into one
    k×k convolution for inference (paper, section 3.1).

    The first arguments are those of ``nn.Conv2d``, so that ``conv_cfg=dict(type='ConvPair')`` turns
    the convolutions of a network that takes a ``conv_cfg`` into pairs.

    Args:
        in_channels: Number of input channels, C_in.
        out_channels: Number of output channels, C_out.
        kernel_size: Kernel size of the first convolution in pixels; the second is 1×1.
        stride, padding, dilation, padding_mode: Those of the first convolution.
        groups: Number of groups of both convolutions. Default: 1.
        bias: Whether the second convolution has a bias (the first always has). Default: True.
        mid_channels: Number of channels between the two convolutions. None: ``out_channels``.
        mid_ratio: Factor of that number, which fusing and merging take away. Default: 1.
        norm_cfg: Config of the norm between the two. Default: BN; eps is 1e-6 if it is not given.
        last_norm: Whether a norm of the same kind also follows the second convolution. None: only
            if ``bias`` is True, since a network that asks for no bias brings its own norm.
        zero_init: Whether the second convolution starts at zero, so that the pair gives zeros (with
            a last norm: its bias) and still learns. Default: False.
        init_cfg: Config of the initialisation, as for every mmengine module.
        deploy: Whether to build the plain ``nn.Conv2d`` that fusing this pair gives, with a bias:
            ``ConvPair(…, deploy=True)`` is an ``nn.Conv2d``. Default: False.

    The attributes of an ``nn.Conv2d`` are those of the first convolution.

    Raises:
        AttributeError: ``weight`` or ``bias`` is read or set; a pair has two of each.
    """

    def __new__(cls, *args: Any, deploy: bool = False, **kwargs: Any) -> Any:
        """Build a pair or, with ``deploy``, the plain convolution."""
        if not deploy:
            return super().__new__(cls)
        # A subclass may choose the geometry itself, so build one on the meta device and ask it.
        with torch.device("meta"):
            pair = super().__new__(cls)
            pair.__init__(*args, **kwargs)
        return nn.Conv2d(pair.in_channels, pair.out_channels, **conv_geometry(pair.geometry))

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
        mid_ratio: float = 1.0,
        norm_cfg: dict[str, Any] | None = DEFAULT_NORM_CFG,
        last_norm: bool | None = None,
        zero_init: bool = False,
        init_cfg: Any = None,
        deploy: bool = False,
    ) -> None:
        assert not deploy, "__new__ has built a plain convolution"
        super().__init__(init_cfg)
        mid_channels = round(mid_ratio * (out_channels if mid_channels is None else mid_channels))
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
        last_cfg = norm_cfg if last_norm else None
        self.second = ConvNorm(
            mid_channels, out_channels, 1, groups=groups, bias=bias, norm_cfg=last_cfg
        )
        self._scale_as_kaiming()
        if zero_init:
            nn.init.zeros_(self.second.conv.weight)

    def _scale_as_kaiming(self) -> None:
        """Scale both weights to the variance that mmcv's ``ConvModule`` gives its convolution.

        ``ConvModule`` leaves a layer alone that has ``init_weights``, as mmengine's modules have.
        """
        for conv in (self.first.conv, self.second.conv):
            fan_in, fan_out = conv.weight[0].numel(), len(conv.weight) * conv.weight[0, 0].numel()
            with torch.no_grad():
                # From a variance of 1 / (3 fan_in) to one of 2 / fan_out.
                conv.weight.mul_((6 * fan_in / fan_out) ** 0.5)
                if conv.bias is not None:
                    conv.bias.zero_()

    def __getattr__(self, name: str) -> Any:
        _require_one(name)
        if name in _OF_FIRST:
            return getattr(self.first.conv, name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        _require_one(name)
        if name in _OF_FIRST:
            setattr(self.first.conv, name, value)
        else:
            super().__setattr__(name, value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if not {f"{prefix}weight", f"{prefix}conv.weight"}.isdisjoint(state_dict):
            raise RuntimeError(  # mmengine would leave the pair's weights random
                f"{prefix[:-1]}: these weights are of a single convolution, which no pair loads; "
                "build the network without pairs, or with deploy=True"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

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
        act_lambda = float(getattr(self.act, "act_lambda", 1.0))
        if act_lambda != 1.0:
            raise RuntimeError(
                f"cannot fuse at λ = {act_lambda:g}, where the pair is not linear yet; train to "
                "the end of the decay (λ = 1)"
            )


def _require_one(name: str) -> None:
    if name in ("weight", "bias"):
        raise AttributeError(
            f"a ConvPair has no {name} of its own, since it has two convolutions: use "
            f"first.conv.{name} and second.conv.{name}, or build this layer without pairs"
        )
