"""The table of VanillaNet's variants, and how a config names one of them or describes its own.

Source: arXiv 2305.12972, table 1 of the appendix; for the 1.5x variants, the authors' release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

_WIDTH_DIVISOR = 8  # kernels run best at multiples of it, as all published widths are


@dataclass(frozen=True)
class Arch:
    """The architecture of one VanillaNet: the shapes of its layers.

    Layers are counted from the input: layer 0 is the stem, layer ``i + 1`` is block ``i``.

    Args:
        dims: Output channels of the stem, then of each block.
        strides: Stride of each block, which max pooling applies; one entry fewer than ``dims``.
        adaptive_pools: Output size in pixels of each block's adaptive max pooling, 0 for a block
            that pools by its stride. Empty: no block pools adaptively.
        stem_stride: Stride of the stem's 4x4 convolution.
        stem_padding: Padding of the stem's 4x4 convolution.
        input_size: Height and width in pixels of the only input of an arch with
            ``adaptive_pools``. None: every size works.

    Raises:
        ValueError: The entries contradict each other.
    """

    dims: tuple[int, ...]
    strides: tuple[int, ...]
    adaptive_pools: tuple[int, ...] = ()
    stem_stride: int = 4
    stem_padding: int = 0
    input_size: int | None = None

    def __post_init__(self) -> None:
        for name, minimum in dict(dims=1, strides=1, adaptive_pools=0).items():
            values = getattr(self, name)
            if not all(_is_int(value) and value >= minimum for value in values):
                raise ValueError(
                    f"arch: {name} must be integers of at least {minimum}, found {values}"
                )
        blocks = len(self.strides)
        if not blocks or len(self.dims) != blocks + 1:
            raise ValueError(
                "arch: dims has the stem's channels and then one entry for each block, so it must "
                f"be one longer than strides; found {len(self.dims)} dims and {blocks} strides"
            )
        if self.adaptive_pools and len(self.adaptive_pools) != blocks:
            raise ValueError(
                "arch: adaptive_pools needs one entry for each block (0 for none); found "
                f"{len(self.adaptive_pools)} entries for {blocks} blocks"
            )
        if self.is_adaptive != bool(self.input_size):
            raise ValueError(
                "arch: adaptive_pools work for one input size only, and need it (input_size=224); "
                f"without them input_size must be left out; found input_size={self.input_size!r}"
            )

    @property
    def is_adaptive(self) -> bool:
        """True if some block pools to a fixed size."""
        return any(self.adaptive_pools)

    @property
    def levels(self) -> tuple[int, ...]:
        """Index of the last layer of each resolution, the finest first."""
        last_layers = [layer for layer, stride in enumerate(self.strides) if stride > 1]
        return (*last_layers, len(self.strides))

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level's output, the finest first."""
        return tuple(self.dims[layer] for layer in self.levels)

    def scaled(self, width_mult: float) -> Arch:
        """Multiply every width, and round it to a multiple of 8, at least 8."""
        if not width_mult > 0:
            raise ValueError(f"width_mult must be a positive number, found {width_mult!r}")
        if width_mult == 1:
            return self
        dims = tuple(
            max(_WIDTH_DIVISOR, round(dim * width_mult / _WIDTH_DIVISOR) * _WIDTH_DIVISOR)
            for dim in self.dims
        )
        return replace(self, dims=dims)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _published(middle_blocks: int) -> Arch:
    """Make one of the variants 8 to 13, which differ in the number of 2048-channel blocks."""
    return Arch(
        dims=(512, 512, 1024, *[2048] * middle_blocks, 4096, 4096),
        strides=(1, 2, 2, *[1] * (middle_blocks - 1), 2, 1),
    )


_ARCH_13 = _published(7)

ARCHS: dict[str, Arch] = {
    "5": Arch(dims=(512, 1024, 2048, 4096), strides=(2, 2, 2)),
    "6": Arch(dims=(512, 1024, 2048, 4096, 4096), strides=(2, 2, 2, 1)),
    "7": Arch(dims=(512, 512, 1024, 2048, 4096, 4096), strides=(1, 2, 2, 2, 1)),
    "8": _published(2),
    "9": _published(3),
    "10": _published(4),
    "11": _published(5),
    "12": _published(6),
    "13": _ARCH_13,
    "13-1.5x": _ARCH_13.scaled(1.5),
    "13-1.5x-ada": replace(
        _ARCH_13.scaled(1.5),
        adaptive_pools=(0, 38, 19, 0, 0, 0, 0, 0, 0, 10, 0),
        stem_stride=3,
        stem_padding=1,
        input_size=224,
    ),
}


def resolve_arch(arch: str | int | Mapping[str, Any] | Arch, width_mult: float = 1.0) -> Arch:
    """Turn the ``arch`` of a config into an :class:`Arch`.

    Args:
        arch: A name in :data:`ARCHS` (``'5'`` … ``'13-1.5x-ada'``; 5 … 13 may be integers), or a
            dict of the arguments of :class:`Arch`.
        width_mult: Factor for every width, for small devices. Default: 1.

    Raises:
        ValueError: The name is unknown, the entries contradict each other, or ``width_mult`` is not
            positive.
        TypeError: ``arch`` is of another type, or the dict has an unknown key or lacks one.

    Examples:
        >>> resolve_arch(dict(dims=(16, 32, 64), strides=(2, 2))).level_channels
        (16, 32, 64)
    """
    if isinstance(arch, Arch):
        return arch.scaled(width_mult)
    if isinstance(arch, str) or _is_int(arch):
        if str(arch) not in ARCHS:
            raise ValueError(f"unknown arch {arch!r}; choose from {', '.join(ARCHS)}")
        return ARCHS[str(arch)].scaled(width_mult)
    if not isinstance(arch, Mapping):
        raise TypeError(f"arch must be a name or a dict, found {type(arch).__name__}")
    entries: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in arch.items()
    }
    return Arch(**entries).scaled(width_mult)
