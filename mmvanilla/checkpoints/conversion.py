"""Convert the authors' checkpoints into ours, as `mmvanilla convert_checkpoint` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmvanilla.checkpoints.authors_keys import DETECTOR, Converted, convert_authors
from mmvanilla.checkpoints.reading import MapLocation, read_checkpoint
from mmvanilla.checkpoints.writing import StrPath, check_writable, write_checkpoint
from mmvanilla.models.act_lambda import SCHEDULES
from mmvanilla.models.archs import ARCHS, resolve_arch

_STEM = ("stem.conv.first.conv.weight", "stem.conv.weight")
# In this order: the published accuracy is that of the averaged weights; the last key is mmdet 2's.
_WEIGHTS_KEYS = ("model_ema", "model", "state_dict")


def convert_checkpoint(
    checkpoint: Mapping[str, Any], in_channels: int | None = None
) -> tuple[dict[str, Any], Converted]:
    """Convert the content of an authors' file.

    Args:
        checkpoint: Content of the file. The weights are its entry ``model_ema``, else ``model``,
            else ``state_dict``; without these it is a state dict itself.
        in_channels: Number of image channels to which :func:`adapt_kernel` adapts the stem. None:
            it is not changed.

    Returns:
        A checkpoint of plain types (``meta`` and ``state_dict``), and a description of its weights.

    Raises:
        ValueError: As :func:`convert_authors`, or ``in_channels`` is below 1.
    """
    full = (key for key in _WEIGHTS_KEYS if checkpoint.get(key))
    key = next((key for key in full if isinstance(checkpoint[key], Mapping)), None)
    act_lambda = _read_act_lambda(checkpoint.get("epoch"), checkpoint.get("args"))
    found = convert_authors(checkpoint if key is None else checkpoint[key], act_lambda)
    stem = next(name for name in found.state_dict if name.endswith(_STEM))
    if in_channels is not None:
        found.state_dict[stem] = adapt_kernel(found.state_dict[stem], in_channels)
    meta: dict[str, Any] = dict(
        converted_from=key or "state dict",
        act_lambda=act_lambda,
        in_channels=found.state_dict[stem].shape[1],
    )
    theirs = checkpoint.get("meta")
    classes = theirs.get("CLASSES") if isinstance(theirs, Mapping) else None
    if classes and found.kind == DETECTOR:
        meta["dataset_meta"] = dict(classes=[str(name) for name in classes])
    return dict(meta=meta, state_dict=found.state_dict), found


def convert_file(
    path: StrPath, map_location: MapLocation = "cpu", in_channels: int | None = None
) -> tuple[dict[str, Any], Converted]:
    """Read an authors' file and convert it; errors name the file."""
    checkpoint = read_checkpoint(path, map_location)
    try:
        return convert_checkpoint(checkpoint, in_channels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def convert_and_write(
    source: StrPath,
    path: StrPath,
    arch: str | int | Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> tuple[dict[str, Any], Converted]:
    """Convert an authors' file into one for our classifier, backbone or detector.

    Args:
        source: Path of the authors' file.
        path: Path of the file to write; nothing is written unless all of it can be converted.
        arch: Variant of the file, a name such as ``'13-1.5x'`` or a dict of an own one. None: it is
            recognised by its widths.
        overwrite: Whether to replace ``path`` if it exists. Default: False.

    Returns:
        What :func:`convert_checkpoint` returns; ``meta`` has the variant as ``arch``, too.

    Raises:
        FileExistsError: ``path`` exists, and ``overwrite`` is False.
        ValueError: The file is not one of the authors', its weights do not fit ``arch``, or it is
            the file to write.
    """
    check_writable([path], overwrite, inputs=[source])  # before the work, not after it
    converted, found = convert_file(source)
    converted["meta"]["arch"] = identify_arch(found.dims, arch)
    write_checkpoint(converted, path, overwrite)
    return converted, found


def identify_arch(
    dims: Sequence[int], arch: str | int | Mapping[str, Any] | None = None
) -> str | dict[str, Any]:
    """Find what to write as ``arch`` in a config for weights of these widths.

    Args:
        dims: Channels of the stem, then of each block.
        arch: The variant, by name or as a dict. None: the published variant of these widths.

    Raises:
        ValueError: The given ``arch`` has other widths, or the widths are not those of one variant.
    """
    names = [name for name, known in ARCHS.items() if known.dims == tuple(dims)]
    if arch is None:
        if len(names) == 1:
            return names[0]
        raise ValueError(
            f"weights do not show which blocks pool, and dims={tuple(dims)} are those of "
            f"{' and '.join(names) or 'no published variant'}: give --arch, a name or "
            '{"dims": […], "strides": […]}'
        )
    if resolve_arch(arch).dims != tuple(dims):
        raise ValueError(
            f"arch={arch!r} has dims={resolve_arch(arch).dims}, but the weights have {tuple(dims)} "
            f"and fit {' and '.join(names) or 'no published variant'}"
        )
    return dict(arch) if isinstance(arch, Mapping) else str(arch)


def adapt_kernel(weight: Tensor, in_channels: int) -> Tensor:
    """Adapt a kernel, (C_out, C_in, kh, kw), to another number of input channels, at least 1.

    New channel j belongs to old channel j modulo the smaller number. With fewer channels, the
    kernels of the old ones are added: a gray image gives what it gave when it was repeated. With
    more, each kernel is divided by the number of its repetitions.
    """
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, found {in_channels}")
    old, exact = weight.shape[1], weight.double()
    parts = []
    for new in range(in_channels):
        first = new % min(old, in_channels)
        repetitions = len(range(first, in_channels, old))
        parts.append(exact[:, first::in_channels].sum(dim=1) / repetitions)
    return torch.stack(parts, dim=1).to(weight.dtype)


def _read_act_lambda(epoch: Any, args: Any) -> float:
    """Compute λ from the epoch and the args of the authors' training."""
    options = args if isinstance(args, Mapping) else getattr(args, "__dict__", {})
    decay_epochs = options.get("decay_epochs")
    if not isinstance(epoch, int | float | Tensor) or not decay_epochs:
        return 1.0
    schedule = SCHEDULES["linear" if options.get("decay_linear", True) else "cosine"]
    return schedule(float(epoch) / decay_epochs)
