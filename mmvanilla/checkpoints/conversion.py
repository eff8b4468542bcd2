"""Convert the authors' checkpoints into ours, as `mmvanilla convert_checkpoint` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmvanilla.checkpoints.authors_keys import (
    BACKBONE,
    CLASSIFIER,
    DETECTOR,
    Converted,
    convert_authors,
)
from mmvanilla.checkpoints.identify_arch import identify_arch
from mmvanilla.checkpoints.input_channels import adapt_kernel, find_stem
from mmvanilla.checkpoints.reading import MapLocation, read_checkpoint
from mmvanilla.checkpoints.writing import check_writable, write_checkpoint
from mmvanilla.models.act_lambda import SCHEDULES
from mmvanilla.models.archs import Arch

_USUAL_CHANNELS = 3  # VanillaNet's default of in_channels
# In this order: the published accuracy is that of the averaged weights; the last key is mmdet 2's.
_WEIGHTS_KEYS = ("model_ema", "model", "state_dict")


def convert_checkpoint(
    checkpoint: Mapping[str, Any], target: str | None = None, in_channels: int | None = None
) -> tuple[dict[str, Any], Converted]:
    """Convert the content of an authors' file.

    Args:
        checkpoint: Content of the file. The weights are its entry ``model_ema``, else ``model``,
            else ``state_dict``; without these it is a state dict itself.
        target: Kind of network to make weights for, as in
            :func:`mmvanilla.checkpoints.authors_keys.convert_authors`.
        in_channels: Number of image channels to which the stem is adapted, by
            :func:`mmvanilla.checkpoints.input_channels.adapt_kernel`. None: it is not changed.

    Returns:
        A checkpoint of plain types (``meta`` and ``state_dict``), and a description of its weights.

    Raises:
        ValueError: :func:`mmvanilla.checkpoints.authors_keys.convert_authors` refuses the weights,
            or ``in_channels`` is below 1.
    """
    key = next((key for key in _WEIGHTS_KEYS if isinstance(checkpoint.get(key), Mapping)), None)
    weights = checkpoint if key is None else checkpoint[key]
    act_lambda = _read_act_lambda(checkpoint)
    converted = convert_authors(weights, target, act_lambda)
    stem = find_stem(converted.state_dict)
    if in_channels is not None:
        converted.state_dict[stem] = adapt_kernel(converted.state_dict[stem], in_channels)
    meta: dict[str, Any] = dict(
        converted_from=key or "state dict",
        dims=list(converted.dims),
        act_num=converted.act_num,
        deploy=converted.deploy,
    )
    if converted.state_dict[stem].shape[1] != _USUAL_CHANNELS:
        meta["in_channels"] = converted.state_dict[stem].shape[1]
    if not converted.deploy:
        meta["act_lambda"] = act_lambda
    classes = _read_classes(checkpoint)
    if classes and converted.kind == DETECTOR:
        meta["dataset_meta"] = dict(classes=classes)
    return dict(meta=meta, state_dict=converted.state_dict), converted


def convert_file(
    path: str | os.PathLike[str],
    target: str | None = None,
    map_location: MapLocation = "cpu",
    in_channels: int | None = None,
) -> tuple[dict[str, Any], Converted]:
    """Read an authors' file and convert it.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: :func:`convert_checkpoint` refuses the content; the message names the file.
    """
    checkpoint = read_checkpoint(path, map_location)
    try:
        return convert_checkpoint(checkpoint, target, in_channels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_act_lambda(checkpoint: Mapping[str, Any]) -> float:
    """Compute λ from the epoch and the args of the authors' training; it is 1 at its end."""
    epoch = checkpoint.get("epoch")
    decay_epochs = getattr(checkpoint.get("args"), "decay_epochs", None)
    if not isinstance(epoch, int) or not isinstance(decay_epochs, int) or epoch >= decay_epochs:
        return 1.0
    is_linear = getattr(checkpoint["args"], "decay_linear", True)
    return SCHEDULES["linear" if is_linear else "cosine"](epoch / decay_epochs)


def _read_classes(checkpoint: Mapping[str, Any]) -> list[str] | None:
    meta = checkpoint.get("meta")
    classes = meta.get("CLASSES") if isinstance(meta, Mapping) else None
    return [str(name) for name in classes] if isinstance(classes, list | tuple) else None


@dataclass(frozen=True)
class ConversionReport:
    """The result of :func:`convert_and_write`.

    Args:
        path: Path of the written file.
        arch: The variant, as in the ``arch`` of a config.
        meta: The ``meta`` of the written checkpoint.
        found: The converted weights and their description.
    """

    path: Path
    arch: str | dict[str, Any]
    meta: dict[str, Any]
    found: Converted

    @property
    def backbone_cfg(self) -> str:
        """The line of a config that builds the backbone."""
        deploy = ", deploy=True" if self.found.deploy else ""
        adapted = self.meta.get("in_channels")
        channels = "" if adapted is None else f", in_channels={adapted}"
        return (
            f"backbone=dict(type='VanillaNet', arch={self.arch!r}, act_num={self.found.act_num}"
            f"{channels}{deploy})"
        )

    def describe(self) -> str:
        """Describe for the user what was found, and how a config uses it, in several lines."""
        found = self.found
        form = "deploy form" if found.deploy else "training form"
        lines = [
            f"found:  VanillaNet arch={self.arch!r}, act_num={found.act_num}, {form}, from "
            f"{self.meta['converted_from']}",
            f"wrote:  {len(found.state_dict)} tensors of a {found.kind} to {self.path}",
            f"config: {self.backbone_cfg}",
        ]
        if found.kind == CLASSIFIER:
            deploy = ", deploy=True" if found.deploy else ""
            lines.append(
                f"        head=dict(type='VanillaNetClsHead', num_classes={found.num_classes}, "
                f"in_channels={found.dims[-1]}{deploy})"
            )
        prefix = "" if found.kind == BACKBONE else ", prefix='backbone.'"
        lines.append(
            "only the backbone's weights: "
            f"init_cfg=dict(type='Pretrained', checkpoint={str(self.path)!r}{prefix})"
        )
        if self.meta.get("act_lambda", 1.0) != 1.0:
            lines.append(
                f"note:   saved at λ = {self.meta['act_lambda']:g}, before the end of the decay: "
                "it cannot be fused yet"
            )
        return "\n".join(lines)


def convert_and_write(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    arch: str | int | Mapping[str, Any] | Arch | None = None,
    strides: Sequence[int] | None = None,
    target: str | None = None,
    overwrite: bool = False,
    in_channels: int | None = None,
    complete: Callable[[dict[str, Any]], object] = lambda converted: None,
) -> ConversionReport:
    """Convert an authors' file into one for our classifier, backbone or detector.

    Args:
        source: Path of the authors' file.
        path: Path of the file to write; nothing is written unless all of it can be converted.
        arch: The variant, if the user knows it, as in
            :func:`mmvanilla.checkpoints.identify_arch.identify_arch`.
        strides: Strides of the blocks, if the user knows them, as in the same function.
        target: Kind of network to make weights for, as in
            :func:`mmvanilla.checkpoints.authors_keys.convert_authors`.
        overwrite: Whether to replace ``path`` if it exists. Default: False.
        in_channels: Number of image channels to which the stem is adapted, as in
            :func:`convert_checkpoint`.
        complete: Function that is called with the converted checkpoint before it is written, and
            may add to its ``meta`` or refuse it.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        FileExistsError: ``path`` exists, and ``overwrite`` is False.
        ValueError: The file is not one of the authors', or its weights do not fit ``arch``, or
            ``path`` is the same file as ``source``.
    """
    check_writable([path], overwrite, inputs=[source])  # before the work, not after it
    checkpoint = read_checkpoint(source)
    try:
        converted, found = convert_checkpoint(checkpoint, target, in_channels)
        origin = f"{Path(source).name} {getattr(checkpoint.get('args'), 'model', '')}"
        name = identify_arch(found.dims, arch, strides, origin)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    converted["meta"]["arch"] = name
    complete(converted)
    write_checkpoint(converted, path, overwrite)
    return ConversionReport(Path(path), name, converted["meta"], found)
