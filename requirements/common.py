"""What the two halves of the set-up share: the stacks, messages, running commands."""

import contextlib
import os
import re
import subprocess

try:
    import fcntl
except ImportError:  # not on Windows, where two set-ups at once are the user's affair
    fcntl = None

HERE = os.path.dirname(os.path.abspath(__file__))
# Of each stack: mmcv's distribution, the installer of its prebuilt wheels, and the Pythons for
# which everything it pins exists.
STACKS = {
    "fork": ("onedl-mmcv", "onedl-mim", ((3, 10), (3, 11), (3, 12))),
    "original": ("mmcv", "openmim", ((3, 10), (3, 11))),
}


class SetupError(Exception):
    """A reason to stop that the user can do something about."""


def say(text):
    print(f"[setup] {text}", flush=True)


@contextlib.contextmanager
def locked(path, what):
    """Let one set-up at a time do its work; a second one waits for it.

    The system frees the lock when the process ends, however it ends.

    Args:
        path: The lock file. It is made, and stays.
        what: Where the other one is working, for the message.

    Yields:
        The open lock file, to read from and to append to.
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
    """Run a command whose failure ends the set-up; the command has said why by then."""
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(
            f"this command failed: {' '.join(command)} ({error}). Correct what it complains about "
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
