"""VanillaNet as a backbone for every OpenMMLab toolbox (arXiv 2305.12972)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvanilla.models.archs import Arch, resolve_arch
from mmvanilla.models.block import DEFAULT_ACT_CFG, VanillaBlock
from mmvanilla.models.conv_pair import DEFAULT_NORM_CFG
from mmvanilla.models.strict_loading import StrictLoadingMixin

# The initialisation of the backbone and the head, unless init_cfg says otherwise.
DEFAULT_INIT_CFG: list[dict[str, Any]] = [
    dict(type="TruncNormal", layer="Conv2d", std=0.02, bias=0.0),
    dict(type="Constant", layer="_BatchNorm", val=1.0, bias=0.0),
]


@MODELS.register_module()
class VanillaNet(StrictLoadingMixin, BaseModule):
    """VanillaNet: a plain CNN of 5 to 13 layers without shortcuts or attention.

    There is one output for each resolution level, that of the last layer with this resolution. With
    the published strides these are 1/4, 1/8, 1/16 and 1/32 of the input's resolution; for variants
    5 and 6 the 1/4 level is the output of the stem. Sizes are rounded down at each stride.

    Args:
        arch: ``'5'`` … ``'13'``, ``'13-1.5x'``, ``'13-1.5x-ada'``, or a dict of ``dims`` and
            ``strides`` (see :func:`mmvanilla.models.archs.resolve_arch`).
        width_mult: Factor for every width (rounded to a multiple of 8), for small devices.
            Published weights exist only for 1. Default: 1.
        in_channels: Number of input channels. Default: 3.
        out_indices: Indices of the levels to return, ascending; negative ones count from the
            coarsest level. None: all levels, or only the coarsest if ``arch`` pools adaptively.
        act_num: n of the series activation, whose kernel is (2n + 1) × (2n + 1). Default: 3.
        act_cfg: Config of the base activation. Default: ReLU.
        norm_cfg: Config of the norms, BN (default) or SyncBN; eps is 1e-6 if it is not given. Norms
            without running statistics can be trained, but not fused.
        frozen_stages: Number of the stage up to which parameters are frozen, as in ResNet. 0: the
            stem; i: the stem and every layer up to level ``i - 1``, included; -1 (default): none.
        norm_eval: Whether to keep batch norm in eval mode during training. Default: False.
        with_cp: Whether to keep one tensor per layer for backward and to recompute the others.
            Gradients and running statistics do not change. Default: False.
        deploy: Whether to build the deploy form. Weights of the training form are then fused while
            they are loaded. Default: False.
        deep_training: Whether to train each convolution as a pair (paper, section 3.1).
            Default: True.
        mid_ratio: Factor of the number of channels inside each pair; fused, it is gone. Default: 1.
        series_activation: Whether to use the series activation (section 3.2). False: only the base
            activation. Default: True.
        init_cfg: Config of the initialisation. Default: truncated normal with a standard deviation
            of 0.02, biases 0.

    Raises:
        TypeError: An argument is misspelt or of a wrong type.
        ValueError: An argument is out of its range.

    Examples:
        >>> import torch
        >>> from mmvanilla import VanillaNet
        >>> net = VanillaNet(dict(dims=(8, 16, 32, 64), strides=(2, 2, 2))).eval()
        >>> [tuple(out.shape) for out in net(torch.rand(1, 3, 64, 96))]
        [(1, 8, 16, 24), (1, 16, 8, 12), (1, 32, 4, 6), (1, 64, 2, 3)]
        >>> net.switch_to_deploy()
        >>> net.deploy
        True
    """

    #: The class of the layers behind the stem, of which a subclass may have another one.
    block_type: type[VanillaBlock] = VanillaBlock

    def __init__(
        self,
        arch: str | int | Mapping[str, Any] | Arch,
        width_mult: float = 1.0,
        in_channels: int = 3,
        out_indices: Sequence[int] | int | None = None,
        act_num: int = 3,
        act_cfg: dict[str, Any] = DEFAULT_ACT_CFG,
        norm_cfg: dict[str, Any] = DEFAULT_NORM_CFG,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        deploy: bool = False,
        deep_training: bool = True,
        mid_ratio: float = 1.0,
        series_activation: bool = True,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(DEFAULT_INIT_CFG if init_cfg is None else init_cfg)
        self.arch = resolve_arch(arch, width_mult)
        self.out_indices = _resolve_out_indices(out_indices, self.arch)
        if not isinstance(act_num, int) or act_num < 0:
            raise ValueError(f"act_num must be an integer of at least 0, found {act_num!r}")
        if not -1 <= frozen_stages <= len(self.arch.levels):
            raise ValueError(
                f"frozen_stages must be -1 (none), 0 (the stem) or up to {len(self.arch.levels)} "
                f"(all), found {frozen_stages}"
            )
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        layer_cfg: dict[str, Any] = dict(
            act_num=act_num,
            act_cfg=act_cfg,
            norm_cfg=norm_cfg,
            deep_training=deep_training,
            mid_ratio=mid_ratio,
            series_activation=series_activation,
            with_cp=with_cp,
            deploy=deploy,
        )
        dims = self.arch.dims
        stem_cfg = dict(stride=self.arch.stem_stride, padding=self.arch.stem_padding, **layer_cfg)
        self.stem = VanillaBlock(in_channels, dims[0], 4, mid_channels=dims[0], **stem_cfg)
        self.blocks = nn.ModuleList(
            self.block_type(*channels, pool=_build_pool(self.arch, block), **layer_cfg)
            for block, channels in enumerate(pairwise(dims))
        )
        self._freeze_stages()

    @property
    def fixed_input_size(self) -> tuple[int, int] | None:
        """Height and width in pixels of the only input that works; None if every size works."""
        size = self.arch.input_size
        return (size, size) if size else None

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output, for a neck's ``in_channels``."""
        return tuple(self.arch.level_channels[level] for level in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images, (N, in_channels, H, W), to the levels in ``out_indices``.

        Each is (N, C, H // s, W // s), where s is the stride of the level.

        Raises:
            ValueError: ``arch`` pools adaptively, for another input size.
        """
        size = self.fixed_input_size
        if size is not None and tuple(x.shape[-2:]) != size:
            raise ValueError(
                f"this arch pools to fixed sizes and takes {size[0]}x{size[1]} inputs only, found "
                f"{x.shape[-2]}x{x.shape[-1]}; choose '13-1.5x'"
            )
        # A tuple: the compiler of torch 2.1 knows no sets.
        wanted = tuple(self.arch.levels[level] for level in self.out_indices)
        outs = []
        for layer, module in enumerate((self.stem, *self.blocks)):
            x = module(x)
            if layer in wanted:
                outs.append(x)
            if len(outs) == len(wanted):
                break
        return tuple(outs)

    def train(self, mode: bool = True) -> VanillaNet:
        """Set training mode, except in frozen layers and, with ``norm_eval``, in norms."""
        super().train(mode)
        if mode:
            self._freeze_stages()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        last_layer = 0 if self.frozen_stages == 0 else self.arch.levels[self.frozen_stages - 1]
        for module in (self.stem, *self.blocks)[: last_layer + 1]:
            module.eval()
            module.requires_grad_(False)

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Return the depth of a parameter, and the number of depths, for layer-wise decay.

        The stem has depth 0, block ``i`` has ``i + 1``, and what is outside the backbone (below
        ``prefix``) one more than the last block.
        """
        num_depths = len(self.blocks) + 2
        own_name = param_name.removeprefix(prefix)
        if not param_name.startswith(prefix) or not own_name.startswith(("stem.", "blocks.")):
            return num_depths - 1, num_depths
        part, index = own_name.split(".")[:2]
        return (0 if part == "stem" else int(index) + 1), num_depths


def _build_pool(arch: Arch, block: int) -> nn.Module | None:
    if arch.adaptive_pools and arch.adaptive_pools[block]:
        return nn.AdaptiveMaxPool2d(arch.adaptive_pools[block])
    stride = arch.strides[block]
    return nn.MaxPool2d(stride) if stride > 1 else None


def _resolve_out_indices(out_indices: Sequence[int] | int | None, arch: Arch) -> tuple[int, ...]:
    levels = range(len(arch.levels))
    allowed = levels[-1:] if arch.is_adaptive else levels  # adaptive pooling is for classifiers
    if out_indices is None:
        return tuple(allowed)
    asked = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    resolved = tuple(index + len(levels) if index < 0 else index for index in asked)
    if not resolved or list(resolved) != sorted({*resolved} & {*allowed}):
        raise ValueError(
            f"out_indices must be ascending, out of {list(allowed)} (one for each resolution of "
            f"this arch, not for each block), found {asked}"
        )
    return resolved
