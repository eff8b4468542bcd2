"""Read checkpoints from files and addresses, and run no code from them."""

from __future__ import annotations

import io
import math
import mmap
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from mmengine.runner import (
    CheckpointLoader,
    get_deprecated_model_names,
    get_external_models,
    get_torchvision_models,
)

from mmvanilla.checkpoints import plain_pickle
from mmvanilla.checkpoints.download import fetch

MapLocation = str | torch.device | Callable[..., Any] | dict[str, str] | None

_ZIP_MAGIC = b"PK\x03\x04"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Other buffers may be infinite, such as the mask of an attention.
_FINITE = ("weight", "bias", "running_mean", "running_var")


def read_checkpoint(
    source: str | os.PathLike[str], map_location: MapLocation = "cpu"
) -> dict[str, Any]:
    """Read a checkpoint of mmengine or of the authors, or a state dict; no code of it runs.

    The check sums of a zip archive are compared; the format of torch before 1.6 has none.

    Args:
        source: Path of a file, or an address that mmengine's loader knows.
        map_location: Device of the tensors, as in ``torch.load``; None: the CPU.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: There is no file to read.
        ValueError: The file is damaged, is not a checkpoint, or names something that could run
            code.
        RuntimeError: The file cannot be fetched.
    """
    if "://" not in str(source):
        return _read_file(Path(source).expanduser(), map_location)
    for prefix, load in _LOADERS.items():
        if prefix and re.match(prefix, str(source)):
            return load(str(source), map_location)
    return CheckpointLoader.load_checkpoint(str(source), map_location)


def use_safe_loaders() -> None:
    """Let mmengine read by :func:`read_checkpoint` from now on, in this process, as our tools do.

    ``load_from``, ``init_cfg`` and ``resume`` go through the table in which this replaces the
    loaders of mmengine, which unpickle everything.
    """
    for prefix, load in _LOADERS.items():
        CheckpointLoader.register_scheme(prefix, load, force=True)


def _read_file(path: Path, map_location: MapLocation) -> dict[str, Any]:
    with path.open("rb") as file:
        try:
            loaded = _read_open(file, "cpu" if map_location is None else map_location)
        except Exception as error:  # a damaged file can end in any exception
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{path} cannot be read as a checkpoint ({reason}); fetch or copy it again, or "
                "have its author save only the state dict"
            ) from error
    if isinstance(loaded, dict):
        return loaded
    raise ValueError(f"{path} holds a {type(loaded).__name__}; expected a dict with weights in it")


def _read_open(file: IO[bytes], map_location: MapLocation) -> Any:
    is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
    file.seek(0)
    if is_zip:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            if raw.find(b"/constants.pkl") >= 0:  # torch would hand it to its interpreter
                raise ValueError("it is a TorchScript program")
        with zipfile.ZipFile(file) as archive:
            changed = archive.testzip()
        if changed is not None:
            raise ValueError(f"the check sum of its part {changed} is wrong")
        file.seek(0)
    else:  # from memory, so that torch does not try the tar archives of its first versions
        file = io.BytesIO(file.read())
    options: dict[str, Any] = dict(pickle_module=plain_pickle, weights_only=False)
    return torch.load(file, map_location=map_location, **options)


def check_weights(state_dict: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Refuse weights with which the outputs of a network would be meaningless.

    Args:
        state_dict: Floating-point tensors by name; other values are not checked.
        path: Where the weights come from, for messages.

    Raises:
        ValueError: ``state_dict`` is not a mapping, a tensor has a NaN, a weight or statistic is
            infinite, or a variance is negative.
    """
    if not isinstance(state_dict, Mapping):
        raise ValueError(f"{path} has a {type(state_dict).__name__} where its weights should be")
    for key, value in state_dict.items():
        is_checked = isinstance(value, torch.Tensor) and value.dtype in _FLOATS
        if not is_checked or value.is_meta or not value.numel():
            continue
        # Without a copy, which a tensor of stride 0 could make large.
        low, high = float(value.detach().amin()), float(value.detach().amax())
        name = str(key)
        if (
            math.isnan(low)
            or (name.endswith(_FINITE) and math.isinf(max(-low, high)))
            or (name.endswith("running_var") and low < 0)
        ):
            raise ValueError(
                f"{path}: {name} has values from {low:g} to {high:g}: the training diverged, or "
                "the file was changed; take an earlier checkpoint"
            )


# mmengine logs the names of these functions, from the tenth letter on.


def load_from_local(filename: str | Path, map_location: MapLocation = None) -> dict[str, Any]:
    """Load a file."""
    loaded = _read_file(Path(filename).expanduser(), map_location)
    check_weights(loaded.get("state_dict", loaded), filename)
    return loaded


def load_from_http(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """Load the file of an address, and keep it in torch's cache."""
    return load_from_local(str(fetch(filename, load_from_local)), map_location)


def load_from_name(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """Load a published file of torchvision or OpenMMLab, by the addresses that mmengine lists."""
    scheme, _, name = filename.partition("://")
    is_torchvision = scheme in ("torchvision", "modelzoo")
    addresses = get_torchvision_models() if is_torchvision else get_external_models()
    name = name if is_torchvision else get_deprecated_model_names().get(name, name)
    if name not in addresses:
        raise ValueError(f"mmengine knows no weights {filename}; check the name")
    return read_checkpoint(addresses[name], map_location)


def refuse_to_load(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """Refuse an address whose loader unpickles everything."""
    raise ValueError(
        f"{filename} cannot be read without running code from it; fetch the file by other means "
        "and name it instead"
    )


# By mmengine's prefixes, which are regular expressions.
_LOADERS: dict[str, Callable[..., dict[str, Any]]] = {
    "": load_from_local,
    **dict.fromkeys(["http://", "https://"], load_from_http),
    **dict.fromkeys(["torchvision://", "modelzoo://"], load_from_name),
    **dict.fromkeys(["open-mmlab://", "openmmlab://"], load_from_name),
    **dict.fromkeys(["mmcls://", "pavi://"], refuse_to_load),
    **dict.fromkeys([r"(\S+\:)?s3://", r"(\S+\:)?petrel://"], refuse_to_load),
}
