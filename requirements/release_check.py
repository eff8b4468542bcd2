#!/usr/bin/env python3
"""Check a release before it is uploaded: `make release-check`.

Builds the source distribution and the wheel, lets twine check them, installs the wheel in an empty
environment beside an mmcv without ops, and there trains, tests and fuses a tiny classifier. What
passed is in dist/ afterwards. Needs the network; takes several minutes and 7 GB of disk meanwhile.
"""

import argparse
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from common import HERE, SetupError, lock_file, pinned_version, run, say

ROOT = os.path.dirname(HERE)
# What a clone has besides the project.
NOT_RELEASED = (".git", ".venv*", "build", "dist", "data", "work_dirs", "outputs", "*.egg-info")
NOT_RELEASED += ("__pycache__", ".mim", ".*_cache", ".hypothesis")
CONFIG = "shapes/vanillanet_shapes.py"
MMCV_LITE = "mmcv-lite==2.1.0"
# Two epochs on few images: enough for a loss, a checkpoint and an accuracy.
SHORT = ["max_epochs=2", "train_cfg.max_epochs=2", "train_cfg.val_interval=2"]
SHORT += ["default_hooks.checkpoint.interval=2", "custom_hooks.0.decay_epochs=1"]


def new_venv(folder):
    """Create an empty virtual environment and return its interpreter."""
    run([sys.executable, "-m", "venv", folder])
    return os.path.join(folder, "bin", "python")


def pip_install(python, *arguments):
    run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments])


def output_of(command, folder):
    """Run a command in a folder, show what it prints, and return that."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    lines = []
    with subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode != 0:
        last = (lines or ["no output"])[-1].strip()
        raise SetupError(f"this command failed: {' '.join(command)} ({last})")
    return "".join(lines)


def build(project, scratch):
    """Build the source distribution, and the wheel from it; return the folder of both."""
    say("building the source distribution and the wheel")
    clean = os.path.join(scratch, "project")
    shutil.copytree(project, clean, ignore=shutil.ignore_patterns(*NOT_RELEASED))
    python = new_venv(os.path.join(scratch, "tools"))
    pip_install(python, "-r", lock_file("release"))
    folder = os.path.join(scratch, "dist")
    output_of([python, "-m", "build", "--outdir", folder, clean], scratch)
    say("checking the metadata")
    files = sorted(glob.glob(os.path.join(folder, "*")))
    output_of([python, "-m", "twine", "check", "--strict", *files], scratch)
    return folder


def install(dist, scratch):
    """Install the wheel where nothing else is, beside an mmcv without ops; return the Python."""
    say("installing the wheel in an empty environment")
    (wheel,) = glob.glob(os.path.join(dist, "*.whl"))
    python = new_venv(os.path.join(scratch, "empty"))
    # Classification needs torchvision and mmpretrain, too.
    wanted = [f"{wheel}[lite]", "onedl-mmpretrain", "torchvision"]
    limits = ["--constraint", lock_file("fork")]
    pip_install(python, *limits, "torch", "torchvision")
    # pip's cache may have a wheel of mmcv with ops.
    pip_install(python, "--no-cache-dir", *limits, *wanted)
    output_of([python, "-m", "pip", "check"], scratch)
    return python


def accuracy(python, config, checkpoint, folder):
    """Test a checkpoint; return its top-1 accuracy as it is printed."""
    command = [python, "-m", "mmvanilla", "test", config, checkpoint, "--work-dir", "tested"]
    found = re.findall(r"accuracy/top1: (\S+)", output_of(command, folder))
    if not found:
        raise SetupError(f"this command printed no accuracy/top1: {' '.join(command)}")
    return found[-1]


def use(python, folder):
    """Train, test, fuse and test again, with what is installed, outside any clone."""
    os.makedirs(folder)
    tool = [python, "-m", "mmvanilla"]
    code = f"import mmvanilla; print(mmvanilla.config_path({CONFIG!r}))"
    config = output_of([python, "-c", code], folder).splitlines()[-1]
    if not config.startswith(os.path.dirname(os.path.dirname(python))):
        raise SetupError(f"the config comes from {config}, not from the installed package")
    small = ["--num-train", "60", "--num-val", "12", "--layouts", "imagenet"]
    output_of([*tool, "make_shapes", "data/shapes", *small], folder)
    train = [*tool, "train", config, "--work-dir", "trained", "--cfg-options", *SHORT]
    output_of(train, folder)
    weights = os.path.join("trained", "epoch_2.pth")
    output_of([*tool, "fuse_backbone", config, weights, "fused.pth"], folder)
    before = accuracy(python, config, weights, folder)
    after = accuracy(python, "fused.py", "fused.pth", folder)
    if before != after:
        raise SetupError(f"top-1 is {before} when trained and {after} when fused")
    say(f"trained, fused and tested: top-1 {before} in both forms")


def check(project, target):
    """Check the release of a project and, if it passes, put its files into a folder."""
    scratch = tempfile.mkdtemp(prefix="mmvanilla-release-")
    try:
        dist = build(project, scratch)
        python = install(dist, scratch)
        say(f"using it with onedl-mmcv {pinned_version('fork', 'onedl-mmcv')} without ops")
        use(python, os.path.join(scratch, "with_mmcv"))
        say(f"using it with {MMCV_LITE}")
        run([python, "-m", "pip", "uninstall", "-qq", "--yes", "onedl-mmcv"])
        pip_install(python, "--no-deps", MMCV_LITE)  # it would bring the other mmengine
        use(python, os.path.join(scratch, "with_mmcv_lite"))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(dist, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def stop(number, frame):
    """Treat SIGTERM as Ctrl-C, so that the same clean-up runs."""
    raise KeyboardInterrupt


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Check a release before it is uploaded.")
    parser.add_argument("--project", default=ROOT, help="folder of the project; default: this one")
    options = parser.parse_args(arguments)
    target = os.path.join(options.project, "dist")
    start = time.monotonic()
    try:
        check(options.project, target)
    except (SetupError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    files = ", ".join(sorted(os.listdir(target)))
    say(f"the release passed in {time.monotonic() - start:.0f} s; {target} has {files}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    sys.exit(main())
