"""Reading checkpoint files without running what they say."""

from __future__ import annotations

import argparse
import codecs
import os
import pickle
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch._weights_only_unpickler import _get_allowed_globals

MapLocation = str | torch.device | Callable[..., Any] | dict[str, str] | None


class _Unread:
    """Stands for an object of a training run that nobody who reads weights needs."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _allowed_globals() -> dict[str, Any]:
    """What a pickle may name besides what torch allows itself: the name, and what it gets.

    Values alone: the authors' ``args``, numpy arrays, and mmengine's log history, which refers to
    ``getattr`` and therefore comes back empty.
    """
    allowed: dict[str, Any] = {
        "argparse.Namespace": argparse.Namespace,
        "_codecs.encode": codecs.encode,
        "mmengine.logging.history_buffer.HistoryBuffer": _Unread,
        "builtins.getattr": _Unread,
        "builtins.set": set,
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
    }
    # numpy 1.26 has an _core as well, but nothing in it; numpy 2 warns of core.
    core = getattr(np, "_core", None)
    multiarray: Any = core if hasattr(core, "multiarray") else np.core
    for package in ("numpy.core", "numpy._core"):  # as numpy 1 and numpy 2 write it
        allowed[f"{package}.multiarray._reconstruct"] = multiarray.multiarray._reconstruct
        allowed[f"{package}.multiarray.scalar"] = multiarray.multiarray.scalar
    for kind in ("b1", "u1", "i4", "i8", "f4", "f8", "U1", "O"):
        dtype = type(np.dtype(kind))
        allowed[f"{dtype.__module__}.{dtype.__qualname__}"] = dtype
    return allowed


class _RestrictedUnpickler(pickle.Unpickler):
    """Resolves the names that ``torch.load(weights_only=True)`` would, and those above."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {**_get_allowed_globals(), **_allowed_globals()}
        # torch.save writes names as Python 2 knew them.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full_name = f"{module}.{name}"
        if full_name not in allowed:
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {full_name} was not allowed")
        return allowed[full_name]


def _load_restricted(path: Path, map_location: MapLocation) -> Any:
    """Safe reading for a torch that cannot be told to allow a class (before 2.5)."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise pickle.UnpicklingError("Unsupported file: it is a TorchScript program")
    module = SimpleNamespace(
        __name__="pickle",
        Unpickler=_RestrictedUnpickler,
        load=lambda file, **kwargs: _RestrictedUnpickler(file, **kwargs).load(),
    )
    return torch.load(path, map_location=map_location, pickle_module=module, weights_only=False)


def _load(path: Path, map_location: MapLocation) -> Any:
    safe_globals = getattr(torch.serialization, "safe_globals", None)
    if safe_globals is None:
        return _load_restricted(path, map_location)
    with safe_globals([(value, name) for name, value in _allowed_globals().items()]):
        return torch.load(path, map_location=map_location, weights_only=True)


def read_checkpoint(
    path: str | os.PathLike[str], map_location: MapLocation = "cpu"
) -> dict[str, Any]:
    """Read a checkpoint file; nothing that the file says is executed.

    It reads what mmengine saves, what the authors saved (``args`` is a Namespace), and bare state
    dicts. mmengine's log history comes back empty.

    Args:
        path: The file.
        map_location: As in ``torch.load``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is truncated, is no checkpoint, or asks for something that could run code.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        checkpoint = _load(path, map_location)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is {_refusal(str(error))}") from error
    except Exception as error:
        # torch raises many types here, each over several lines.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} cannot be read as a checkpoint: it is truncated, or torch.save did not write "
            f"it ({reason[:120]}); fetch it again"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f"{path} holds a {type(checkpoint).__name__}; expected a dict with weights in it"
        )
    return checkpoint


def _refusal(message: str) -> str:
    for line in message.splitlines():
        if "GLOBAL" in line:
            name = line.partition("GLOBAL ")[2].split()[0]
            return (
                f"refused: it names {name!r}, which is more than weights and plain values and "
                "could run code; have its author save the state dict alone"
            )
    return f"no checkpoint that can be read safely ({message.splitlines()[-1][:120]})"
