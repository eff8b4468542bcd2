"""One layer of VanillaNet: convolution, pooling, series activation (paper, section 3)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmvanilla.models.conv_pair import DEFAULT_NORM_CFG, ConvNorm, ConvPair
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
    """

    def __init__(
        self,
        channels: int,
        act_num: int = 3,
        act_cfg: dict[str, Any] = DEFAULT_ACT_CFG,
        norm_cfg: dict[str, Any] = DEFAULT_NORM_CFG,
        deploy: bool = False,
    ) -> None:
        super().__init__()
        self.act = build_activation_layer(act_cfg)
        geometry: dict[str, Any] = dict(
            kernel_size=2 * act_num + 1, padding=act_num, groups=channels
        )
        self.conv = (
            nn.Conv2d(channels, channels, **geometry)
            if deploy
            else ConvNorm(channels, channels, bias=False, norm_cfg=norm_cfg, **geometry)
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
        mid_channels: Number of channels inside the pair. None: ``in_channels``.
        pool: Pooling module after the convolution; None for no pooling.
        others: As in :class:`~mmvanilla.models.vanillanet.VanillaNet`.
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
        mid_ratio: float = 1.0,
        series_activation: bool = True,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        geometry: dict[str, Any] = dict(kernel_size=kernel_size, stride=stride, padding=padding)
        if deploy:
            self.conv: Any = nn.Conv2d(in_channels, out_channels, **geometry)
        elif deep_training:
            geometry.update(mid_channels=mid_channels or in_channels, mid_ratio=mid_ratio)
            self.conv = ConvPair(in_channels, out_channels, **geometry, norm_cfg=norm_cfg)
        else:
            self.conv = ConvNorm(in_channels, out_channels, **geometry, norm_cfg=norm_cfg)
        self.pool = pool
        self.act = (
            SeriesActivation(out_channels, act_num, act_cfg, norm_cfg, deploy)
            if series_activation
            else build_activation_layer(act_cfg)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W')."""
        if self.with_cp and self.training and torch.is_grad_enabled():
            return self._recomputed(x)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        if self.pool is not None:
            out = self.pool(out)
        return self.act(out)

    @eager_on_old_torch
    def _recomputed(self, x: Tensor) -> Tensor:
        # The compiler's recomputation has no side effects, so it needs no context.
        options: dict[str, Any] = (
            {}
            if is_compiling()
            else dict(context_fn=lambda: (nullcontext(), _FrozenRunningStats(self)))
        )
        return checkpoint(self._forward, x, use_reentrant=False, **options)


class _FrozenRunningStats:
    """Keeps a module's running statistics while its forward is recomputed, on the same batch.

    Each backward pass enters the context once; second derivatives enter it while it is active.
    """

    def __init__(self, module: nn.Module) -> None:
        self._norms: list[Any] = [
            norm
            for norm in module.modules()
            if isinstance(norm, _BatchNorm) and norm.num_batches_tracked is not None
        ]
        self._saved: list[list[tuple[float | None, Tensor]]] = []

    def __enter__(self) -> None:
        self._saved.append(
            [(norm.momentum, norm.num_batches_tracked.clone()) for norm in self._norms]
        )
        for norm in self._norms:
            norm.momentum = 0.0

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, number) in zip(self._norms, self._saved.pop(), strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(number)
