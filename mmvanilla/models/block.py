"""One layer of VanillaNet: convolution, pooling, series activation (paper, section 3).

No compiled op is needed.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import TracebackType
from typing import Any

import torch
from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.layers import DEFAULT_NORM_CFG, ConvNorm, ShortcutConv, plain_conv
from mmvanilla.models.torch_versions import eager_on_old_torch, is_compiling

DEFAULT_ACT_CFG: dict[str, Any] = dict(type="ReLU")


class SeriesActivation(BaseModule):
    """Series-informed activation: A(x) = norm(depthwise(act(x))) (paper, equation 6).

    Args:
        channels: Number of channels of the input and the output, C.
        act_num: n of a depthwise kernel of (2n + 1) × (2n + 1) pixels. Default: 3.
        act_cfg: Config of the base activation. Default: ReLU.
        norm_cfg: Config of the norm after the depthwise convolution. Default: BN with eps 1e-6.
        deploy: Whether to build the deploy form. Default: False.
        init_cfg: Config of the initialisation, as for every mmengine module.
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
        """Map (N, C, H, W) to the same shape."""
        return self.conv(self.act(x))


class VanillaBlock(BaseModule):
    """One layer of VanillaNet: convolution → max pooling → activation. The stem is one, too.

    Args:
        in_channels: Number of input channels, C_in.
        out_channels: Number of output channels, C_out.
        kernel_size: Kernel size of the convolution in pixels. Default: 1.
        stride: Stride of the convolution; the pooling has a stride of its own. Default: 1.
        padding: Padding of the convolution in pixels. Default: 0.
        mid_channels: Number of channels between the convolutions of the pair. None:
            ``in_channels``.
        pool: Pooling module after the convolution; None for no pooling.
        act_num: n of the series activation. Default: 3.
        act_cfg: Config of the base activation. Default: ReLU.
        norm_cfg: Config of the norms of the training form. Default: BN with eps 1e-6.
        deploy: Whether to build the deploy form. Default: False.
        deep_training: Whether to train the convolution as a pair. False, for ablations: as one
            convolution. Default: True.
        series_activation: Whether to use the series activation. False, for ablations: only the
            base activation. Default: True.
        with_cp: Whether to recompute this layer in backward instead of keeping its inner
            activations. Default: False.
        init_cfg: Config of the initialisation, as for every mmengine module.
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
        with_cp: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
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
        self.conv = conv
        self._add_shortcut(*channels, norm_cfg, deploy)
        self.pool = pool
        self.act = (
            SeriesActivation(out_channels, act_num, act_cfg, norm_cfg, deploy)
            if series_activation
            else build_activation_layer(act_cfg)
        )

    def _add_shortcut(
        self, in_channels: int, out_channels: int, norm_cfg: dict[str, Any], deploy: bool
    ) -> None:
        """Build the shortcut; VanillaNet's own block has none."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W')."""
        if not (self.with_cp and self.training and torch.is_grad_enabled()):
            return self._forward(x)
        return self._recomputed(x)

    @eager_on_old_torch
    def _recomputed(self, x: Tensor) -> Tensor:
        if is_compiling():
            # The compiler's recomputation has no side effects, so statistics are updated only once.
            return checkpoint(self._forward, x, use_reentrant=False)
        return checkpoint(
            self._forward,
            x,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _FrozenRunningStats(self)),
        )

    def _forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        if self.pool is not None:
            out = self.pool(out)
        return self.act(out)


class EarlyShortcutBlock(VanillaBlock):
    """A block for ablations that adds its input to the convolution's output.

    If the number of channels changes, a 1×1 convolution with a norm adapts the input. All of this
    is linear and fuses into the one convolution of the block. The arguments are those of
    :class:`VanillaBlock`.
    """

    def _add_shortcut(
        self, in_channels: int, out_channels: int, norm_cfg: dict[str, Any], deploy: bool
    ) -> None:
        if not deploy:
            self.conv = ShortcutConv(self.conv, _projection(in_channels, out_channels, norm_cfg))


class LateShortcutBlock(VanillaBlock):
    """A block for ablations that adds its pooled input to its output; fusing keeps the shortcut.

    If the number of channels changes, a 1×1 convolution with a norm adapts the input. The arguments
    are those of :class:`VanillaBlock`.
    """

    def _add_shortcut(
        self, in_channels: int, out_channels: int, norm_cfg: dict[str, Any], deploy: bool
    ) -> None:
        self.late_projection = _projection(in_channels, out_channels, norm_cfg, deploy)

    def _forward(self, x: Tensor) -> Tensor:
        out = super()._forward(x)
        late = x if self.late_projection is None else self.late_projection(x)
        return out + (late if self.pool is None else self.pool(late))


#: The block for each value of VanillaNet's ``shortcut``.
BLOCKS: dict[str | None, type[VanillaBlock]] = {
    None: VanillaBlock,
    "before_act": EarlyShortcutBlock,
    "after_act": LateShortcutBlock,
}


def _projection(
    in_channels: int, out_channels: int, norm_cfg: dict[str, Any], deploy: bool = False
) -> Any:
    """Build the convolution of a shortcut that changes the channels; None for the identity."""
    if in_channels == out_channels:
        return None
    if deploy:
        return plain_conv(in_channels, out_channels, 1)
    return ConvNorm(in_channels, out_channels, 1, norm_cfg=norm_cfg)


class _FrozenRunningStats:
    """Keeps the running statistics of a module unchanged while its forward is recomputed.

    Activation checkpointing runs the same batch again. Without this context batch norm would count
    the batch twice, and training with and without ``with_cp`` would differ. Each backward pass
    through the graph enters the context once; second derivatives enter it while it is active.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._saved: list[list[tuple[Any, float | None, Tensor]]] = []

    def __enter__(self) -> None:
        norms: list[Any] = [
            norm
            for norm in self._module.modules()
            if isinstance(norm, _BatchNorm) and norm.num_batches_tracked is not None
        ]
        self._saved.append(
            [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
        )
        for norm in norms:
            norm.momentum = 0.0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for norm, momentum, num_batches_tracked in self._saved.pop():
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(num_batches_tracked)
