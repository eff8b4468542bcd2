"""Find the variant that weights belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmvanilla.models.archs import ARCHS, Arch, resolve_arch
from mmvanilla.models.published import PUBLISHED


def identify_arch(
    dims: Sequence[int],
    arch: str | int | Mapping[str, Any] | Arch | None = None,
    strides: Sequence[int] | None = None,
    origin: str = "",
) -> str | dict[str, Any]:
    """Find what to write as ``arch`` in a config for weights of these widths.

    Weights show the widths of a network, but not which of its blocks pool. If the widths are those
    of a published variant, the result is that variant; for other widths the user must give the
    strides.

    Args:
        dims: Channels of the stem, then of each block.
        arch: The variant, if the user knows it. None: it is found from the widths.
        strides: Strides of the blocks, if the user knows them, for unpublished widths.
        origin: Names that belong to the weights (the file name, and ``model`` in the authors'
            ``args``). They distinguish variants of the same widths.

    Returns:
        A name in :data:`mmvanilla.models.archs.ARCHS`, or a dict.

    Raises:
        ValueError: The given ``arch`` has other widths; or no published variant has these widths
            and no strides were given; or two variants have them and cannot be distinguished.
    """
    dims = tuple(dims)
    if arch is not None and strides is not None:
        raise ValueError("found arch and strides; give only one of them")
    if arch is not None:
        resolved = resolve_arch(arch)
        if resolved.dims != dims:
            raise ValueError(
                f"the weights have dims={dims}, but arch={arch!r} has dims={resolved.dims}; "
                f"{_names_with(dims) or 'leave arch out to see what they are'}"
            )
        return _as_config(arch)
    if strides is not None:
        Arch(dims=dims, strides=tuple(strides))  # raises an error if they contradict each other
        return dict(dims=dims, strides=tuple(strides))
    names = [name for name, known in ARCHS.items() if known.dims == dims]
    if not names:
        raise ValueError(
            f"no published variant has dims={dims}, and weights do not show which blocks pool: "
            f"give the strides of the {len(dims) - 1} blocks (--strides 2 2 1 …) or the whole arch "
            "(--arch)"
        )
    if len(names) == 1:
        return names[0]
    # The name of one of these files begins with the name of the other, so try the longer one first.
    files = {entry.arch: entry.file.removesuffix(".pth") for entry in PUBLISHED.values()}
    for name in sorted(names, key=lambda name: len(files[name]), reverse=True):
        if files[name] in origin:
            return name
    raise ValueError(
        f"{' and '.join(names)} have the same shapes and differ only in their pooling, which "
        f"weights do not show: give the right one with --arch {' or --arch '.join(names)}"
    )


def _names_with(dims: tuple[int, ...]) -> str:
    names = [name for name, known in ARCHS.items() if known.dims == dims]
    return f"they fit {' and '.join(names)}" if names else ""


def _as_config(arch: str | int | Mapping[str, Any] | Arch) -> str | dict[str, Any]:
    if isinstance(arch, str | int):
        return str(arch)
    resolved = resolve_arch(arch)
    plain = Arch(dims=resolved.dims, strides=resolved.strides)
    optional = ("adaptive_pools", "stem_stride", "stem_padding", "input_size")
    return dict(
        dims=resolved.dims,
        strides=resolved.strides,
        **{
            key: getattr(resolved, key)
            for key in optional
            if getattr(resolved, key) != getattr(plain, key)
        },
    )
