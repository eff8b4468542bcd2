"""Let mmengine and the toolboxes use our reader and writer of checkpoints while our tools run.

mmengine falls back to unpickling everything if safe reading fails. While :func:`safe_loading` is
active, ``torch.load`` itself is our reader, so no code can avoid it, whatever the scheme of the
address is and whichever module of a toolbox loads the file. Afterwards everything is restored:
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
from mmvanilla.checkpoints.weights import check_weights
from mmvanilla.checkpoints.writing import write_checkpoint
from mmvanilla.models.published import RELEASE_URL, SCHEME

#: The schemes whose loaders are known to call ``torch.load``, ``load_url`` or our own loader.
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
    RELEASE_URL,
)

_FILE_URL = "file://"
_ADDRESS = re.compile(r"^(\S+:)?\w+://")
_load_by_scheme = CheckpointLoader.load_checkpoint
_save_to_backend = mmengine.runner.checkpoint.save_checkpoint
# The file or address that was read last, for errors after the reading.
_last_read: list[str] = []


@contextmanager
def safe_loading() -> Iterator[None]:
    """Let mmengine and the toolboxes read and write checkpoints with our reader and writer.

    This affects the whole process until the block ends. Blocks may be nested.
    """
    # Data workers are forked, so this affects them, too.
    with ExitStack() as stack:
        for owner, name, ours in (
            (torch, "load", _load),
            (mmengine.runner.checkpoint, "load_url", _load_url),
            (CheckpointLoader, "_schemes", _only_known(CheckpointLoader._schemes)),
            (CheckpointLoader, "load_checkpoint", staticmethod(_load_checkpoint)),
            (mmengine.runner, "save_checkpoint", _save),
            (mmengine.runner.runner, "save_checkpoint", _save),
        ):
            stack.enter_context(patch.object(owner, name, ours))
        yield


def load_address(address: str, map_location: MapLocation = "cpu") -> dict[str, Any]:
    """Read a checkpoint from a file, or from an address that mmengine's loader knows.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a checkpoint, or names something that could run code.
        RuntimeError: The file cannot be fetched.
    """
    if "://" not in address:
        return read_checkpoint(address, map_location)
    with safe_loading():
        return CheckpointLoader.load_checkpoint(address, map_location=map_location)


def _load_checkpoint(filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Stands for mmengine's loader, by which ``load_from``, ``init_cfg`` and ``--resume`` read."""
    _last_read[:] = [filename]
    try:
        loaded = _load_by_scheme(filename, *args, **kwargs)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no such file: {filename}; check its name") from error
    if not isinstance(loaded, dict):
        raise ValueError(
            f"{filename} holds a {type(loaded).__name__}; expected a dict with weights in it"
        )
    check_weights(loaded.get("state_dict", loaded), filename)
    return loaded


def _only_known(schemes: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    known = OrderedDict(
        (prefix, loader if prefix in KNOWN_SCHEMES else _refuse)
        for prefix, loader in schemes.items()
    )
    # mmengine tries the schemes in order, and the empty scheme of plain paths matches everything.
    known[_FILE_URL] = _load_file_url
    known.move_to_end(_FILE_URL, last=False)
    return known


def _load_file_url(filename: str, map_location: MapLocation = None) -> Any:
    _last_read[:] = [filename]
    return read_checkpoint(url2pathname(filename.removeprefix(_FILE_URL)), map_location)


def last_read() -> str | None:
    """Return the file or address that mmengine read last; None if it read nothing."""
    return _last_read[-1] if _last_read else None


def forget_last_read() -> None:
    """Let :func:`last_read` return None until the next file is read."""
    _last_read.clear()


def _refuse(filename: str, map_location: MapLocation = None) -> Any:
    raise ValueError(
        f"{filename} has a scheme whose loader is not known to be safe; download the file by "
        "other means and name it instead"
    )


def _load(
    f: Any, map_location: MapLocation = None, pickle_module: Any = None, **options: Any
) -> Any:
    """Replaces ``torch.load``; options that make it trust the file are ignored."""
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
    """Replaces mmengine's ``save_checkpoint``, which leaves half a file if it is killed."""
    if _ADDRESS.match(os.fspath(filename)):
        _save_to_backend(checkpoint, filename, *args, **kwargs)
    else:
        write_checkpoint(checkpoint, filename, overwrite=True)
