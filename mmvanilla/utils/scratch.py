"""Folders for unfinished work beside its target, which no dead process leaves behind for long.

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = re.compile(r"^\.(?P<kind>[a-z]+)-(?P<owner>[0-9a-f]{8})-(?P<pid>\d+)-\w+$")


@contextmanager
def scratch_folder(parent: str | os.PathLike[str], kind: str) -> Iterator[Path]:
    """Make a folder for unfinished work, and remove it afterwards, whatever happens.

    What killed processes left of the same kind in ``parent`` is removed first.

    Args:
        parent: The folder that will hold the result. It is made where it is missing. A rename
            from the scratch folder into it is atomic, since both lie in one file system.
        kind: What is done there, one word in lower case such as ``"exporting"``.

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

    A process of another machine or container cannot be asked whether it lives. Its folders are
    never listed.
    """
    try:
        found = sorted(Path(parent).glob(f".{kind}-*"))
    except OSError:
        return []
    return [path for path in found if path.is_dir() and _is_abandoned(path.name)]


def remove_abandoned(parent: str | os.PathLike[str], kind: str) -> None:
    """Remove what :func:`abandoned` lists."""
    for folder in abandoned(parent, kind):
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(name: str) -> bool:
    match = _NAME.match(name)
    if match is None or match["owner"] != _owner():
        return False
    try:
        os.kill(int(match["pid"]), 0)  # signal 0 only asks
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it lives and belongs to somebody else
        return False
    return False


def _owner() -> str:
    """Stand for what gives a process id its meaning: the machine and the container."""
    if sys.platform == "win32":  # os.kill would end the process there, so nothing is abandoned
        return "0" * 7 + "w"
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]
