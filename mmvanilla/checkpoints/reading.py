"""Reading checkpoint files without running what they say."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

from mmvanilla.checkpoints.containers import (
    DeviceError,
    MapLocation,
    read_container,
)

__all__ = ["MapLocation", "read_checkpoint"]

_REASON_SHOWN = 160  # characters


def read_checkpoint(
    path: str | os.PathLike[str], map_location: MapLocation = "cpu"
) -> dict[str, Any]:
    """Read a checkpoint file; nothing that the file says is executed.

    It reads what mmengine saves (with its log history), what the authors saved (``args`` is a
    Namespace), and bare state dicts. The check sums of a zip archive are compared; the format of
    ``torch.save`` before 1.6 has none.

    Args:
        path: The file.
        map_location: As in ``torch.load``; None: the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        IsADirectoryError: It is a folder.
        ValueError: It is damaged, is no checkpoint, or asks for something that could run code.
        MemoryError: It does not fit into memory.
        RuntimeError: Its weights cannot be moved to the device.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a checkpoint file in it")
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}; check its name")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file; name a checkpoint file")
    try:
        checkpoint = read_container(path, map_location)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is {_refusal(str(error))}") from error
    except DeviceError as error:
        raise RuntimeError(
            f"{path}: its weights cannot be moved to {map_location} ({error}); choose another "
            "device"
        ) from error
    except PermissionError as error:
        raise PermissionError(f"{path} may not be read; change its permissions") from error
    except MemoryError as error:
        raise MemoryError(f"{path} does not fit into memory; use a machine with more") from error
    except Exception as error:
        # A damaged file can end in any exception.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} cannot be read as a checkpoint: it is truncated or changed, or torch.save "
            f"did not write it ({reason[:_REASON_SHOWN]}); fetch or copy it again"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f"{path} holds a {type(checkpoint).__name__}; expected a dict with weights in it"
        )
    return checkpoint


def _refusal(message: str) -> str:
    _, is_global, name = message.partition("GLOBAL ")
    if is_global:
        return (
            f"refused: it names {name!r}, which is more than weights and plain values and "
            "could run code; have its author save the state dict alone"
        )
    return (
        f"no checkpoint that can be read safely ({message[:_REASON_SHOWN]}); fetch it again, or "
        "have its author save the state dict alone"
    )
