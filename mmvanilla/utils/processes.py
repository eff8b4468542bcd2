"""Start and end processes of this package's own interpreter."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
"""The folder that this package is imported from: the clone, or site-packages."""


def python_environment(**more: str) -> dict[str, str]:
    """Return an environment in which Python imports this package, also from a clone.

    Args:
        more: Further variables.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **own, **more}


def end_group(process: subprocess.Popen[Any]) -> None:
    """End a process that was not waited for, and all that it started.

    Args:
        process: A process that was started with ``start_new_session=True``.
    """
    # Until it is waited for, no other process can have its number.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
