"""The parts that install.py and mmcv_wheel.py share: stacks, messages, running commands."""

import contextlib
import os
import re
import subprocess

try:
    import fcntl
except ImportError:  # Windows does not have it, so two set-ups at once are not prevented there
    fcntl = None

HERE = os.path.dirname(os.path.abspath(__file__))
# For each stack: the distribution of mmcv, the installer of its prebuilt wheels, and the versions
# of Python for which all pinned packages exist.
STACKS = {
    "fork": ("onedl-mmcv", "onedl-mim", ((3, 10), (3, 11), (3, 12), (3, 13))),
    "original": ("mmcv", "openmim", ((3, 10), (3, 11))),
}


class SetupError(Exception):
    """An error that the user can correct."""


def say(text):
    print(f"[setup] {text}", flush=True)


@contextlib.contextmanager
def locked(path, what):
    """Let only one set-up work at a time; a second one waits.

    The system releases the lock when the process ends, even if it is killed.

    Args:
        path: Path of the lock file. It is created, and remains.
        what: Folder that the lock protects, for the message.

    Yields:
        The open lock file, for reading and appending.
    """
    with open(path, "a+") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another set-up that is working in {what}")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def run(command):
    """Run a command; its failure ends the set-up, after the command itself printed the reason."""
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(
            f"this command failed: {' '.join(command)} ({error}). Correct the cause "
            "(network, disk space, ...) and run again: finished steps are kept."
        ) from error


def ask(command):
    """Return the output of a short command."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True
    )
    if done.returncode != 0:
        raise SetupError(f"{command[0]} failed: {(done.stderr.strip().splitlines() or [''])[-1]}")
    return done.stdout


def lock_file(name):
    """Return the path of the file that pins versions, as for "fork" or "dev"."""
    return os.path.join(HERE, f"{name}.txt")


def pinned_version(stack, name):
    """Return the version that the stack's lock file pins for `name`."""
    with open(lock_file(stack), encoding="utf-8") as file:
        found = re.search(rf"^{re.escape(name)}==([^\s;]+)", file.read(), flags=re.MULTILINE)
    if not found:
        raise SetupError(f"{lock_file(stack)} has no line '{name}==VERSION'")
    return found.group(1)
