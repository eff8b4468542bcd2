"""The authors' weights by name, ``vanillanet://13``, wherever mmengine accepts a checkpoint.

``vanillanet://NAME`` downloads a published file once into torch's cache;
``vanillanet:///a/file.pth`` reads a file from disk. Both are checked and converted when they are
read. If ``?in_channels=N`` follows, the stem is adapted to images of N channels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.runner import CheckpointLoader

from mmvanilla.checkpoints.authors_keys import CLASSIFIER, DETECTOR
from mmvanilla.checkpoints.conversion import convert_checkpoint, convert_file
from mmvanilla.checkpoints.download import fetch
from mmvanilla.checkpoints.reading import MapLocation, read_checkpoint
from mmvanilla.models.archs import ARCHS
from mmvanilla.models.published import PUBLISHED, RELEASE_URL, SCHEME, PublishedFile

#: Environment variable with the address of a folder to fetch from instead of the authors' release.
MIRROR_VARIABLE = "MMVANILLA_ZOO"


def fetch_published(name: str) -> Path:
    """Fetch a published file into the cache, unless it is there, and check it.

    Args:
        name: A name in :data:`mmvanilla.models.published.PUBLISHED`.

    Raises:
        ValueError: The name is unknown.
        RuntimeError: The file cannot be fetched, or another file came.
    """
    if name not in PUBLISHED:
        raise ValueError(
            f"unknown published weights '{name}'; choose from {', '.join(PUBLISHED)}, or "
            f"read a file with {SCHEME}/path/to/file.pth"
        )
    published = PUBLISHED[name]
    folder = os.environ.get(MIRROR_VARIABLE) or RELEASE_URL
    return fetch(
        f"{folder.rstrip('/')}/{published.file}",
        lambda path: check_published(published, read_checkpoint(path)),
    )


def check_published(
    published: PublishedFile, checkpoint: Mapping[str, Any], in_channels: int | None = None
) -> dict[str, Any]:
    """Convert the content of a published file, and check that it is what its name says.

    Args:
        published: Entry of the file in the table of published files.
        checkpoint: Content of the file.
        in_channels: Number of image channels to which the stem is adapted, as in
            :func:`mmvanilla.checkpoints.conversion.convert_checkpoint`.

    Returns:
        The converted checkpoint, with ``meta`` and ``state_dict``.

    Raises:
        ValueError: The weights are of another variant, act_num or kind, or not of a VanillaNet.
    """
    checkpoint, found = convert_checkpoint(checkpoint, in_channels=in_channels)
    is_detector = found.kind == DETECTOR
    wanted = (ARCHS[published.arch].dims, published.act_num, published.is_detector)
    if (found.dims, found.act_num, is_detector) != wanted:
        raise ValueError(
            f"it holds a {found.kind} with dims={found.dims} and act_num={found.act_num}; expected "
            f"a {DETECTOR if published.is_detector else CLASSIFIER} with dims={wanted[0]} and "
            f"act_num={published.act_num}"
        )
    return checkpoint


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_from_vanillanet(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """Load ``vanillanet://NAME`` or ``vanillanet:///a/local/file.pth``; mmengine calls this.

    The state dict of a classifier has its keys below ``backbone.`` and ``head.``, so a backbone
    loads it with ``init_cfg=dict(type='Pretrained', checkpoint=…, prefix='backbone.')``.

    Weights are adapted to images of N channels by ``?in_channels=N`` after the name or the path:
    ``vanillanet://13?in_channels=1`` (see
    :func:`mmvanilla.checkpoints.input_channels.adapt_kernel`).

    Args:
        filename: Address that begins with ``vanillanet://``.
        map_location: Device of the tensors, as in ``torch.load``; None: the CPU.

    Raises:
        FileNotFoundError: The local file does not exist.
        ValueError: The name or the option is unknown, or the file is not of the authors' format.
        RuntimeError: The file cannot be fetched.
    """
    address, in_channels = _split_option(filename.removeprefix(SCHEME))
    is_local = address.startswith(("/", ".", "~"))
    path = Path(address).expanduser() if is_local else fetch_published(address)
    map_location = "cpu" if map_location is None else map_location
    if is_local:
        return convert_file(path, None, map_location, in_channels)[0]
    try:
        checkpoint = read_checkpoint(path, map_location)
        return check_published(PUBLISHED[address], checkpoint, in_channels)
    except ValueError as error:
        raise ValueError(
            f"{path} is not {PUBLISHED[address].file}: {error}; delete it to fetch it again"
        ) from error


def _split_option(address: str) -> tuple[str, int | None]:
    """Cut ``?in_channels=N`` off a name or a path."""
    name, mark, option = address.partition("?")
    if not mark:
        return address, None
    key, _, value = option.partition("=")
    if key != "in_channels" or not value.isdecimal() or int(value) < 1:
        raise ValueError(
            f"unknown option '?{option}' in {SCHEME}{address}; the only one is ?in_channels=N, "
            "with N of at least 1 (rename a file that has ? in its name)"
        )
    return name, int(value)
