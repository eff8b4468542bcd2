"""What one layer of VanillaNet is: convolution, pooling, series activation (paper, section 3).

Nothing here needs a compiled op.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmvanilla.models.layers import DEFAULT_NORM_CFG, ConvNorm, ConvPair, ShortcutConv, plain_conv

DEFAULT_ACT_CFG: dict[str, Any] = dict(type="ReLU")
SHORTCUTS = (None, "before_act", "after_act")


class SeriesActivation(BaseModule):
    """Series informed activation: A(x) = norm(depthwise(act(x))) (paper, equation 6).

    Args:
        channels: C.
        act_num: n; the depthwise kernel is (2n + 1) × (2n + 1). Default: 3.
        act_cfg: The base activation. Default: ReLU.
        norm_cfg: The norm behind the depthwise convolution. Default: BN with eps 1e-6.
        deploy: Build the deploy form. Default: False.
        init_cfg: As in every mmengine module.
    """

    def __init__(
        self,
        channels: int,
        act_num: int = 3,
        act_cfg: dict[str, Any] = DEFAULT_ACT_CFG,
        norm_cfg: dict[str, Any] = DEFAULT_NORM_CFG,
        deploy: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        self.act = build_activation_layer(act_cfg)
        geometry: dict[str, Any] = dict(padding=act_num, groups=channels)
        kernel_size = 2 * act_num + 1
        self.conv = (
            plain_conv(channels, channels, kernel_size, **geometry)
            if deploy
            else ConvNorm(
                channels, channels, kernel_size, bias=False, norm_cfg=norm_cfg, **geometry
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in and out."""
        return self.conv(self.act(x))


class VanillaBlock(BaseModule):
    """One layer of VanillaNet: convolution → max pooling → activation; the stem is one too.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: Of the convolution. Default: 1.
        stride: Of the convolution, not of the pooling. Default: 1.
        padding: Of the convolution. Default: 0.
        mid_channels: Channels inside the pair of deep training; None: ``in_channels``.
        pool: What pools after the convolution; None: nothing does.
        act_num: n of the series activation. Default: 3.
        act_cfg: The base activation. Default: ReLU.
        norm_cfg: Default: BN with eps 1e-6.
        deploy: Build the deploy form. Default: False.
        deep_training: Train the convolution as a pair. False, for ablation: as one. Default: True.
        series_activation: False, for ablation: the base activation alone. Default: True.
        shortcut: For ablation: ``'before_act'`` adds the input to the convolution's output (then
            fuses into the convolution), ``'after_act'`` adds the pooled input to the block's
            output (then stays). A 1×1 convolution with norm adapts the channels where they change.
            Default: None.
        with_cp: Recompute this layer in backward instead of keeping its inner activations.
            Default: False.
        init_cfg: As in every mmengine module.

    Raises:
        ValueError: No such shortcut.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        padding: int = 0,
        mid_channels: int | None = None,
        pool: nn.Module | None = None,
        act_num: int = 3,
        act_cfg: dict[str, Any] = DEFAULT_ACT_CFG,
        norm_cfg: dict[str, Any] = DEFAULT_NORM_CFG,
        deploy: bool = False,
        deep_training: bool = True,
        series_activation: bool = True,
        shortcut: str | None = None,
        with_cp: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        if shortcut not in SHORTCUTS:
            raise ValueError(f"shortcut must be one of {SHORTCUTS}, found {shortcut!r}")
        self.with_cp = with_cp
        channels = (in_channels, out_channels)
        geometry: dict[str, Any] = dict(kernel_size=kernel_size, stride=stride, padding=padding)
        conv: Any
        if deploy:
            conv = plain_conv(*channels, **geometry)
        elif deep_training:
            mid_channels = in_channels if mid_channels is None else mid_channels
            conv = ConvPair(*channels, **geometry, mid_channels=mid_channels, norm_cfg=norm_cfg)
        else:
            conv = ConvNorm(*channels, **geometry, norm_cfg=norm_cfg)
        if shortcut == "before_act" and not deploy:
            conv = ShortcutConv(conv, _projection(*channels, norm_cfg))
        self.conv = conv
        self.has_late_shortcut = shortcut == "after_act"
        self.late_projection = (
            _projection(*channels, norm_cfg, deploy) if self.has_late_shortcut else None
        )
        self.pool = pool
        self.act = (
            SeriesActivation(out_channels, act_num, act_cfg, norm_cfg, deploy)
            if series_activation
            else build_activation_layer(act_cfg)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) in, (N, C_out, H', W') out."""
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(
                self._forward,
                x,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), _frozen_running_stats(self)),
            )
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        if self.pool is not None:
            out = self.pool(out)
        out = self.act(out)
        if self.has_late_shortcut:
            late = x if self.late_projection is None else self.late_projection(x)
            out = out + (late if self.pool is None else self.pool(late))
        return out


def _projection(
    in_channels: int, out_channels: int, norm_cfg: dict[str, Any], deploy: bool = False
) -> Any:
    """What a shortcut needs where the channels change; None: it is the identity."""
    if in_channels == out_channels:
        return None
    if deploy:
        return plain_conv(in_channels, out_channels, 1)
    return ConvNorm(in_channels, out_channels, 1, norm_cfg=norm_cfg)


@contextmanager
def _frozen_running_stats(module: nn.Module) -> Iterator[None]:
    # The second forward of activation checkpointing sees the same batch again: without this,
    # batch norm would count it twice, and training with and without with_cp would differ.
    norms: list[Any] = [
        norm
        for norm in module.modules()
        if isinstance(norm, _BatchNorm) and norm.num_batches_tracked is not None
    ]
    saved = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, num_batches_tracked) in zip(norms, saved, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(num_batches_tracked)
