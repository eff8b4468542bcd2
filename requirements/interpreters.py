"""Find a Python for which a stack has packages."""

import os
import shutil
import subprocess
import sys

from common import STACKS, SetupError, say

# Prints the version if the interpreter can make virtual environments; Debian splits off what is
# needed for that.
PROBE = "import ensurepip, sys, venv; print(*sys.version_info[:2])"


def check_python(stack, version):
    """Refuse a Python for which the stack has no packages."""
    if tuple(version) not in STACKS[stack][2]:
        raise SetupError(_refusal(stack, version))


def fitting_python(stack, search):
    """Return the path of an interpreter that fits the stack: this one, or else one from PATH.

    Args:
        stack: Name of the stack.
        search: Whether to look on PATH; this interpreter alone counts otherwise.
    """
    version = sys.version_info[:2]
    if version in STACKS[stack][2]:
        return sys.executable
    if not search:
        raise SetupError(_refusal(stack, version))
    names = [f"python{major}.{minor}" for major, minor in sorted(STACKS[stack][2], reverse=True)]
    for name in names:
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            python = shutil.which(name, path=folder) if folder else None
            if python and probe(python) in STACKS[stack][2]:
                say(
                    f"Python {version[0]}.{version[1]} does not fit the {stack} stack, so {python} "
                    "is used; to choose another: make PYTHON=..."
                )
                return python
    raise SetupError(
        f"{_refusal(stack, version)} (no {', '.join(names[:-1])} or {names[-1]} on PATH that runs "
        "and has the module venv)"
    )


def probe(python):
    """Return the version of an interpreter; None if it does not run, or lacks the module venv."""
    try:
        done = subprocess.run(
            [python, "-c", PROBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            universal_newlines=True,
            timeout=60,
        )
        return tuple(int(part) for part in done.stdout.split()) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _refusal(stack, version):
    names = ", ".join(f"{major}.{minor}" for major, minor in STACKS[stack][2])
    return (
        f"Python {version[0]}.{version[1]} found, but the {stack} stack needs one of {names}: "
        "install one, or name it, as in `make env PYTHON=/opt/python3.11/bin/python3`"
    )
