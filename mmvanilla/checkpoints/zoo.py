"""The authors' weights by name, ``vanillanet://13``, wherever mmengine accepts a checkpoint.

``vanillanet://NAME`` downloads a published file once into torch's cache;
``vanillanet:///a/file.pth`` reads a file from disk. Both are checked and converted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.runner import CheckpointLoader

from mmvanilla.checkpoints.authors_keys import CLASSIFIER, DETECTOR
from mmvanilla.checkpoints.conversion import convert_checkpoint, convert_file
from mmvanilla.checkpoints.download import fetch
from mmvanilla.checkpoints.reading import MapLocation, read_checkpoint
from mmvanilla.models.archs import ARCHS

RELEASE_URL = "https://github.com/huawei-noah/VanillaNet/releases/download/ckpt"
SCHEME = "vanillanet://"
#: Environment variable with the address of a folder to fetch from instead of the authors' release.
MIRROR_VARIABLE = "MMVANILLA_ZOO"


@dataclass(frozen=True)
class PublishedFile:
    """A file of the authors' release: its variant, n of the series activation, and its network."""

    file: str
    arch: str
    act_num: int = 3
    kind: str = CLASSIFIER


PUBLISHED: dict[str, PublishedFile] = {
    **{str(depth): PublishedFile(f"vanillanet_{depth}.pth", str(depth)) for depth in range(5, 14)},
    "13-1.5x": PublishedFile("vanillanet_13_x1_5.pth", "13-1.5x"),
    "13-1.5x-ada": PublishedFile("vanillanet_13_x1_5_ada_pool.pth", "13-1.5x-ada"),
    "13-act4": PublishedFile("vanillanet_13_act_num_4_kd_pretrain.pth", "13", act_num=4),
    "mask-rcnn-13": PublishedFile("mask_rcnn_vanillanet_13.pth", "13", 4, DETECTOR),
    "retinanet-13": PublishedFile("retinanet_vanillanet_13.pth", "13", 4, DETECTOR),
}


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_from_vanillanet(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """Load ``vanillanet://NAME`` or ``vanillanet:///a/local/file.pth``; mmengine calls this.

    A backbone loads it with ``init_cfg=dict(type='Pretrained', checkpoint=…, prefix='backbone.')``.

    Args:
        filename: The address. ``?in_channels=N`` at its end adapts the weights to images of N
            channels, as :func:`mmvanilla.checkpoints.conversion.adapt_kernel` does.
        map_location: Device of the tensors, as in ``torch.load``; None: the CPU.

    Raises:
        FileNotFoundError: The local file does not exist.
        ValueError: The name or the option is unknown, or the file is not of the authors' format.
        RuntimeError: The file cannot be fetched, or another file came.
    """
    name, mark, option = filename.removeprefix(SCHEME).partition("?")
    key, _, value = option.partition("=")
    if mark and (key != "in_channels" or not value.isdecimal() or int(value) < 1):
        raise ValueError(
            f"unknown option '?{option}' in {filename}; the only one is ?in_channels=N, with N ≥ 1"
        )
    in_channels = int(value) if mark else None
    if name.startswith(("/", ".", "~")):
        return convert_file(Path(name).expanduser(), map_location, in_channels)[0]
    if name not in PUBLISHED:
        raise ValueError(
            f"unknown published weights '{name}'; choose from {', '.join(PUBLISHED)}, or "
            f"read a file with {SCHEME}/path/to/file.pth"
        )
    entry = PUBLISHED[name]
    folder = os.environ.get(MIRROR_VARIABLE) or RELEASE_URL
    url = f"{folder.rstrip('/')}/{entry.file}"
    path = fetch(url, lambda path: _convert(entry, read_checkpoint(path)))
    return _convert(entry, read_checkpoint(path, map_location), in_channels)


def _convert(
    entry: PublishedFile, checkpoint: Mapping[str, Any], in_channels: int | None = None
) -> dict[str, Any]:
    """Convert the content of a published file, and check that it is what its name says."""
    checkpoint, found = convert_checkpoint(checkpoint, in_channels=in_channels)
    wanted = (entry.kind, ARCHS[entry.arch].dims, entry.act_num)
    held = (found.kind, found.dims, found.act_num)
    if held != wanted:
        raise ValueError(f"it holds {held} (network, dims, act_num); expected {wanted}")
    return checkpoint
