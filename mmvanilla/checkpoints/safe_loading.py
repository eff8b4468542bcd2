"""mmengine's own ways to a checkpoint, through our reader and writer while our tools run.

mmengine unpickles everything as soon as a safe reading is refused. While :func:`safe_loading` is
active, ``torch.load`` itself is our reader, so that there is no way around it, whatever the scheme
of the address and whichever module of a toolbox loads. Afterwards everything is as it was:
importing mmvanilla changes nothing for the toolboxes' own tools.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch
from urllib.request import url2pathname

import mmengine.runner
import mmengine.runner.checkpoint
import mmengine.runner.runner
import torch
from mmengine.runner import CheckpointLoader

from mmvanilla.checkpoints.download import fetch_address
from mmvanilla.checkpoints.reading import MapLocation, read_checkpoint, read_values
from mmvanilla.checkpoints.writing import write_checkpoint
from mmvanilla.models.published import SCHEME

#: The schemes that are known to end in ``torch.load`` or ``load_url``, or in our own loader.
KNOWN_SCHEMES = (
    "",
    "http://",
    "https://",
    "pavi://",
    r"(\S+\:)?s3://",
    r"(\S+\:)?petrel://",
    "modelzoo://",
    "torchvision://",
    "open-mmlab://",
    "openmmlab://",
    "mmcls://",
    SCHEME,
)

_FILE_URL = "file://"
_ADDRESS = re.compile(r"^(\S+:)?\w+://")
_save_to_backend = mmengine.runner.checkpoint.save_checkpoint
# What was asked for last, for errors that come after the reading.
_last_read: list[str] = []


@contextmanager
def safe_loading() -> Iterator[None]:
    """Let mmengine and the toolboxes read and write checkpoints by our means.

    It holds for the whole process until the block ends. Blocks may be nested.
    """
    # Workers are forked, and see what their parent sees.
    with ExitStack() as stack:
        for owner, name, ours in (
            (torch, "load", _load),
            (mmengine.runner.checkpoint, "load_url", _load_url),
            (CheckpointLoader, "_schemes", _only_known(CheckpointLoader._schemes)),
            (mmengine.runner, "save_checkpoint", _save),
            (mmengine.runner.runner, "save_checkpoint", _save),
        ):
            stack.enter_context(patch.object(owner, name, ours))
        yield


def load_address(address: str, map_location: MapLocation = "cpu") -> dict[str, Any]:
    """Read a checkpoint from a file, or from an address that mmengine's loader knows.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no checkpoint, or asks for something that could run code.
        RuntimeError: It cannot be fetched.
    """
    if "://" not in address:
        return read_checkpoint(address, map_location)
    with safe_loading():
        loaded = CheckpointLoader.load_checkpoint(address, map_location=map_location)
    if not isinstance(loaded, dict):
        raise ValueError(
            f"{address} holds a {type(loaded).__name__}; expected a dict with weights in it"
        )
    return loaded


def _only_known(schemes: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    known = OrderedDict(
        (prefix, loader if prefix in KNOWN_SCHEMES else _refuse)
        for prefix, loader in schemes.items()
    )
    # mmengine asks the schemes in turn, and the empty one, of plain paths, fits anything.
    known[_FILE_URL] = _load_file_url
    known.move_to_end(_FILE_URL, last=False)
    return known


def _load_file_url(filename: str, map_location: MapLocation = None) -> Any:
    _last_read[:] = [filename]
    return read_checkpoint(url2pathname(filename.removeprefix(_FILE_URL)), map_location)


def last_read() -> str | None:
    """The file or address that was read last by way of mmengine; None: nothing was."""
    return _last_read[-1] if _last_read else None


def forget_last_read() -> None:
    """Let :func:`last_read` answer None until something is read."""
    _last_read.clear()


def _refuse(filename: str, map_location: MapLocation = None) -> Any:
    raise ValueError(
        f"{filename} has a scheme that is not known to read without running code; fetch the file "
        "by other means and name it"
    )


def _load(
    f: Any, map_location: MapLocation = None, pickle_module: Any = None, **options: Any
) -> Any:
    """Stands for ``torch.load``; what it would trust, it does not trust here."""
    if isinstance(f, str | os.PathLike):
        _last_read[:] = [os.fspath(f)]
    return read_values(f, map_location)


def _load_url(
    url: str,
    model_dir: str | None = None,
    map_location: MapLocation = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
) -> Any:
    _last_read[:] = [url]
    return read_checkpoint(fetch_address(url), map_location)


def _save(checkpoint: dict[str, Any], filename: str, *args: Any, **kwargs: Any) -> None:
    """Stands for mmengine's ``save_checkpoint``, which a kill can leave half-written."""
    if _ADDRESS.match(os.fspath(filename)):
        _save_to_backend(checkpoint, filename, *args, **kwargs)
    else:
        write_checkpoint(checkpoint, filename, overwrite=True)
