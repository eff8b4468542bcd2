"""What the two halves of the set-up share: the stacks, messages, running commands."""

import os
import re
import subprocess

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
