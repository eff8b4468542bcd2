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

    Weights show the widths of a network, but not where its blocks pool. Widths of a published
    variant are therefore taken as that variant, and for all others the user has to say it.

    Args:
        dims: Channels of the stem, then of each block.
        arch: The variant, if the user knows it. None: it is found by the widths.
        strides: The strides of the blocks, if the user knows them, for unpublished widths.
        origin: Names that came with the weights (of the file, and ``model`` in the authors'
            ``args``). They tell variants of the same widths apart.

    Returns:
        A name of :data:`mmvanilla.models.archs.ARCHS`, or a dict.

    Raises:
        ValueError: The given ``arch`` has other widths; or no published variant has these widths
            and no strides were given; or two variants have them, and nothing says which it is.
    """
    dims = tuple(dims)
    if arch is not None and strides is not None:
        raise ValueError("give arch or strides, not both")
    if arch is not None:
        resolved = resolve_arch(arch)
        if resolved.dims != dims:
            raise ValueError(
                f"the weights have dims={dims}, but arch={arch!r} has dims={resolved.dims}; "
                f"{_names_with(dims) or 'leave arch out to see what they are'}"
            )
        return _as_config(arch)
    if strides is not None:
        Arch(dims=dims, strides=tuple(strides))  # refuses what does not go together
        return dict(dims=dims, strides=tuple(strides))
    names = [name for name, known in ARCHS.items() if known.dims == dims]
    if not names:
        raise ValueError(
            f"no published variant has dims={dims}, and weights do not show where blocks pool: "
            f"give the strides of the {len(dims) - 1} blocks (--strides 2 2 1 …) or the whole arch "
            "(--arch)"
        )
    if len(names) == 1:
        return names[0]
    # The file names of these variants differ by what comes after the other's name.
    files = {entry.arch: entry.file.removesuffix(".pth") for entry in PUBLISHED.values()}
    for name in sorted(names, key=lambda name: len(files[name]), reverse=True):
        if files[name] in origin:
            return name
    raise ValueError(
        f"{' and '.join(names)} have the same shapes and differ in how they pool, which weights do "
        f"not show: say which these are with --arch {' or --arch '.join(names)}"
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
