"""Scratch folders for unfinished files; those of dead processes are removed by the next run.

A scratch folder is named ``.KIND-OWNER-PID-RANDOM``. The name says which process works in it, so
that the next run can tell the folder of a killed process from one that is in use.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = re.compile(r"^\.(?P<kind>[a-z]+)-(?P<owner>[0-9a-f]{8})-(?P<pid>\d+)-\w+$")
_OLD_NAME = re.compile(r"^\.(exporting|quantizing|making)-[a-z0-9_]{8}$")
_SURELY_OVER = 24 * 3600  # seconds; no export or data set takes that long


@contextmanager
def scratch_folder(parent: str | os.PathLike[str], kind: str) -> Iterator[Path]:
    """Make a folder for unfinished work, and remove it afterwards, whatever happens.

    Folders of the same kind that killed processes left in ``parent`` are removed first.

    Args:
        parent: The folder that will hold the result; it is created if it does not exist. A rename
            from the scratch folder into it is atomic, since both lie in one file system.
        kind: Name of the work that is done there: one word in lower case, as ``"exporting"``.

    Yields:
        The path of the new, empty folder.
    """
    if not re.fullmatch("[a-z]+", kind):
        raise ValueError(f"kind must be one word in lower case, found {kind!r}")
    parent = Path(parent).expanduser()
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent, kind)
    prefix = f".{kind}-{_owner()}-{os.getpid()}-"
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def abandoned(parent: str | os.PathLike[str], kind: str) -> list[Path]:
    """List the scratch folders of a kind in ``parent`` whose process has died.

    It is not possible to ask whether a process of another machine or container is alive, so its
    folders are never listed.
    """
    try:
        found = sorted(Path(parent).glob(f".{kind}-*"))
    except OSError:
        return []
    return [
        path
        for path in found
        if path.is_dir() and (_is_abandoned(path.name) or _is_of_an_old_version(path))
    ]


def remove_abandoned(parent: str | os.PathLike[str], kind: str) -> None:
    """Remove the folders that :func:`abandoned` lists."""
    for folder in abandoned(parent, kind):
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(name: str) -> bool:
    match = _NAME.match(name)
    if match is None or match["owner"] != _owner():
        return False
    try:
        os.kill(int(match["pid"]), 0)  # signal 0 only asks whether the process exists
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it is alive and belongs to another user
        return False
    return False


def _is_of_an_old_version(path: Path) -> bool:
    """Tell whether version 0.1.0 left a folder, whose name does not say which process made it."""
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return False
    return _OLD_NAME.match(path.name) is not None and age > _SURELY_OVER


def _owner() -> str:
    """Return a digest of the machine and the container, in which a process id is unique."""
    if sys.platform == "win32":  # there os.kill would end the process: no folder is abandoned
        return "0" * 7 + "w"
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]
