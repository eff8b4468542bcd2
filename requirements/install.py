#!/usr/bin/env python3
"""Set up one environment of the project: `python3 requirements/install.py STACK VENV`.

STACK is `fork` (the maintained fork, the default of `make`) or `original` (OpenMMLab's last
releases); VENV is the folder of the virtual environment. Nothing is done twice: a stamp file in
VENV, which is written last, holds a hash of everything that determines its content.

With `--search`, as `make` calls it, an interpreter that does not fit STACK looks on PATH for one
that does, and uses that.

The script needs only the standard library, and runs on old versions of Python, too, in order to say
that a newer one is needed.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys

from common import HERE, STACKS, SetupError, ask, lock_file, locked, run, say
from interpreters import check_python, fitting_python
from mmcv_wheel import check_ops, install_mmcv

ROOT = os.path.dirname(HERE)
STAMP = "mmvanilla-setup.json"
# Installed before the rest, since mmcv's setup.py imports them: without torch it builds a wheel
# that has no ops, and does not report it.
BUILD_TOOLS = ["torch", "numpy", "setuptools", "wheel", "ninja", "packaging", "psutil"]


def fingerprint(stack):
    """Return a hash of everything that determines the content of the environment."""
    # The install of the project is editable, so its folder counts, too.
    digest = hashlib.sha256(f"{stack} {ROOT}".encode())
    scripts = [os.path.join(HERE, name) for name in ("install.py", "mmcv_wheel.py", "common.py")]
    locks = [lock_file(name) for name in (stack, "dev", "no-deps")]
    project = [os.path.join(ROOT, name) for name in ("setup.py", "pyproject.toml")]
    for path in [*scripts, *locks, *project]:
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def is_up_to_date(venv, key):
    """Tell whether an earlier run finished the same environment."""
    try:
        with open(os.path.join(venv, STAMP), encoding="utf-8") as file:
            stamped = json.load(file).get("key")
    except (OSError, ValueError):
        return False
    return stamped == key and os.path.exists(os.path.join(venv, "bin", "python"))


def has_pip(python):
    """Tell whether an interpreter is there, runs, and has pip."""
    try:
        done = subprocess.run(
            [python, "-m", "pip", "--version"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return False
    return done.returncode == 0


def create_venv(stack, venv, note, search):
    """Create the virtual environment unless it is there and whole; return its interpreter.

    Args:
        stack: Name of the stack.
        venv: Folder of the environment.
        note: Open file that is not deleted if the process is killed; it has content while the
            environment is being created.
        search: Whether to look for an interpreter if this one does not fit.
    """
    python = os.path.join(venv, "bin", "python")
    note.seek(0)
    if note.read() and os.path.isdir(venv):
        say(f"{venv} is incomplete, since a set-up was killed: it is created again")
        shutil.rmtree(venv)
    if not os.path.exists(python):
        creator = fitting_python(stack, search)
        if os.path.isdir(venv) and os.listdir(venv):
            raise SetupError(
                f"{venv} holds files but no virtual environment: name another folder, or delete it"
            )
        say(f"creating the virtual environment {venv} with {creator}")
        note.write("being created")
        note.flush()
        try:
            run([creator, "-m", "venv", venv])
        except BaseException as error:
            shutil.rmtree(venv, ignore_errors=True)
            note.truncate(0)
            if not isinstance(error, SetupError):
                raise
            raise SetupError(
                f"{error} On Debian and Ubuntu the module venv is in the package python3-venv."
            ) from error
    note.truncate(0)
    version = ask([python, "-c", "import sys; print(*sys.version_info[:2])"])
    check_python(stack, [int(part) for part in version.split()])
    if not has_pip(python):
        raise SetupError(
            f"the virtual environment {venv} has no pip: delete the folder and run again"
        )
    return python


def set_up(stack, venv, search=False):
    """Install what the lock files pin; return False if the environment was up to date already."""
    venv = os.path.abspath(venv)
    if is_up_to_date(venv, fingerprint(stack)):
        return False
    os.makedirs(os.path.dirname(venv), exist_ok=True)
    # The lock file is beside the environment, since a new attempt may delete the environment.
    with locked(venv + ".lock", venv) as note:
        return _set_up(stack, venv, note, search)


def _set_up(stack, venv, note, search):
    stamp = os.path.join(venv, STAMP)
    key = fingerprint(stack)
    if is_up_to_date(venv, key):
        return False
    # From here to the last line the environment counts as incomplete.
    with contextlib.suppress(FileNotFoundError):
        os.remove(stamp)

    python = create_venv(stack, venv, note, search)
    pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    say("installing torch and the build tools (several GB the first time)")
    run([*pip, "--constraint", lock_file(stack), *BUILD_TOOLS])
    folder = install_mmcv(stack, python)
    say(f"installing what requirements/{stack}.txt and requirements/dev.txt pin")
    # Without isolation, source packages are built with the pinned setuptools, too.
    run([*pip, "--no-build-isolation", "-r", lock_file(stack), "-r", lock_file("dev")])
    run([*pip, "--no-deps", "-r", lock_file("no-deps")])
    run([*pip, "--no-build-isolation", "--no-deps", "--editable", ROOT])
    check_ops(python, folder)

    with open(stamp + ".new", "w", encoding="utf-8") as file:
        json.dump({"stack": stack, "key": key}, file)
    os.replace(stamp + ".new", stamp)
    return True


def stop(number, frame):
    """Treat SIGTERM as Ctrl-C, so that the same clean-up runs."""
    raise KeyboardInterrupt


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Set up an environment of the project.")
    parser.add_argument("stack", choices=sorted(STACKS), help="which OpenMMLab stack")
    parser.add_argument("venv", help="folder of the virtual environment")
    parser.add_argument(
        "--search",
        action="store_true",
        help="if this Python does not fit, look on PATH for one that does",
    )
    options = parser.parse_args(arguments)
    try:
        done = set_up(options.stack, options.venv, options.search)
    except (SetupError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; run again to go on", file=sys.stderr)
        return 130
    say(f"{options.venv} is {'ready' if done else 'up to date'}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    sys.exit(main())
