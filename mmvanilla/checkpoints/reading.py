"""Read checkpoint files without executing any code from them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mmengine.runner import CheckpointLoader

from mmvanilla.checkpoints.containers import (
    DeviceError,
    MapLocation,
    read_container,
)
from mmvanilla.checkpoints.download import fetch_address
from mmvanilla.checkpoints.writing import finish_interrupted

__all__ = ["MapLocation", "find_damage", "read_checkpoint", "read_values", "use_safe_loaders"]

_SURELY_FITS = 10**8  # bytes; a file of less cannot be too large for this machine
_REASON_SHOWN = 160  # characters


def read_checkpoint(
    path: str | os.PathLike[str], map_location: MapLocation = "cpu"
) -> dict[str, Any]:
    """Read a checkpoint file without executing any code from it.

    Supported are checkpoints of mmengine (with their log history), those of the authors (whose
    ``args`` is a Namespace), and bare state dicts. The checksums of a zip archive are verified; the
    format of ``torch.save`` before torch 1.6 has none.

    Args:
        path: Path of the checkpoint file.
        map_location: Device of the tensors, as in ``torch.load``; None: the CPU.

    Raises:
        FileNotFoundError: The file does not exist.
        IsADirectoryError: The path is a folder.
        ValueError: The file is damaged, is not a checkpoint, or names something that could run
            code.
        MemoryError: The file does not fit into memory.
        RuntimeError: The weights cannot be moved to the device.
    """
    checkpoint = read_values(path, map_location)
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f"{path} holds a {type(checkpoint).__name__}; expected a dict with weights in it"
        )
    return checkpoint


def read_values(
    source: str | os.PathLike[str] | IO[bytes], map_location: MapLocation = "cpu"
) -> Any:
    """Read anything that ``torch.save`` wrote, as :func:`read_checkpoint` does.

    Args:
        source: Path of a file, or an open file.
        map_location: Device of the tensors, as in ``torch.load``; None: the CPU.
    """
    if not isinstance(source, str | os.PathLike):
        with _explained(str(getattr(source, "name", "the fetched file")), map_location):
            return read_container(source, map_location)
    path = Path(source).expanduser()
    finish_interrupted(path.parent)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a checkpoint file in it")
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}; check its name")
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file; name a checkpoint file")
    with _explained(str(path), map_location), path.open("rb") as file:
        return read_container(file, map_location)


def find_damage(path: str | os.PathLike[str]) -> str | None:
    """Describe the damage of a checkpoint file; None if it can be read completely."""
    try:
        read_values(path, "cpu")
    except (OSError, ValueError) as error:
        return str(error)
    return None


def use_safe_loaders() -> None:
    """Let mmengine read files and addresses by :func:`read_checkpoint`, in this process.

    ``load_from``, ``init_cfg`` and ``--resume`` then run no code from a file. Our tools call this;
    importing mmvanilla changes nothing for those of the toolboxes.
    """
    CheckpointLoader.register_scheme("", _load_file, force=True)
    CheckpointLoader.register_scheme(("http://", "https://"), _load_address, force=True)


def _load_file(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    return read_checkpoint(filename, map_location)


def _load_address(url: str, map_location: MapLocation = None) -> dict[str, Any]:
    return read_checkpoint(fetch_address(url), map_location)


@contextmanager
def _explained(name: str, map_location: MapLocation) -> Iterator[None]:
    """Turn any error of reading a file into an error with one line that names the file."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ValueError(f"{name} is {_refusal(str(error))}") from error
    except DeviceError as error:
        raise RuntimeError(
            f"{name}: its weights cannot be moved to {map_location} ({error}); choose another "
            "device"
        ) from error
    except PermissionError as error:
        raise PermissionError(f"no permission to read {name}; change its permissions") from error
    except MemoryError as error:
        if Path(name).is_file() and Path(name).stat().st_size < _SURELY_FITS:
            raise ValueError(
                f"{name} cannot be read as a checkpoint: it asks for more memory than a file of "
                "its size needs, so it was changed; fetch or copy it again"
            ) from error
        raise MemoryError(f"{name} does not fit into memory; use a machine with more") from error
    except Exception as error:
        # A damaged file can end in any exception.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{name} cannot be read as a checkpoint: it is truncated or changed, or torch.save "
            f"did not write it ({reason[:_REASON_SHOWN]}); fetch or copy it again"
        ) from error


def _refusal(message: str) -> str:
    _, is_global, name = message.partition("GLOBAL ")
    if is_global:
        return (
            f"refused: it names {name!r}, which is not needed for weights and plain values and "
            "could run code; have its author save only the state dict"
        )
    return (
        f"not a checkpoint that can be read safely ({message[:_REASON_SHOWN]}); fetch it again, or "
        "have its author save only the state dict"
    )
