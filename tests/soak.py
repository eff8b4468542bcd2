"""Train, test, fuse and start again for a while, and watch memory, files and threads.

    python -m tests.soak --minutes 30

Everything happens in one process, so that whatever is not given back adds up. Prints a line a round
and fails if memory, open files or threads grew between the first third and the last one.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import torch

from mmvanilla.apis.runners import build_test_runner, build_train_runner, release
from mmvanilla.datasets.shapes import make_shapes
from mmvanilla.deploy.fuse_checkpoint import fuse_checkpoint
from tests.helpers import ROOT

# Growth from the first third of the rounds to the last one that counts as flat, in MB.
_ALLOWED_GROWTH_MB = 20.0
_CONFIG = ROOT / "configs" / "shapes" / "vanillanet_shapes.py"


class Reading(NamedTuple):
    """What the process holds after a round.

    Attributes:
        memory_mb: Resident memory in 10⁶ bytes.
        files: Number of open file descriptors.
        threads: Number of threads of the process, as the kernel counts them.
        python_threads: Threads that Python knows.
    """

    memory_mb: float
    files: int
    threads: int
    python_threads: int


def take_reading() -> Reading:
    """Read the process's figures from the kernel (Linux)."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return Reading(
        int(status["VmRSS"].split()[0]) * 1024 / 1e6,
        len(os.listdir("/proc/self/fd")),
        int(status["Threads"]),
        threading.active_count(),
    )


def run_round(index: int) -> float:
    """One training of two epochs with evaluation and checkpoints, fusing, testing what was fused.

    Returns:
        The fused model's top-1 in %.
    """
    work_dir = Path("work") / f"round{index % 2}"
    options = {
        "train_cfg.max_epochs": 2,
        "train_cfg.val_interval": 1,
        "param_scheduler.0.end": 1,
        "param_scheduler.1.begin": 1,
        "param_scheduler.1.end": 2,
        "custom_hooks.0.decay_epochs": 1,
        "default_hooks.checkpoint.interval": 1,
        "experiment_name": f"round{index}",
        "log_level": "WARNING",
    }
    runner = build_train_runner(str(_CONFIG), work_dir=str(work_dir), cfg_options=options)
    runner.train()
    release(runner)
    fuse_checkpoint(
        str(_CONFIG), str(work_dir / "epoch_2.pth"), str(work_dir / "fused.pth"), overwrite=True
    )
    runner = build_test_runner(
        str(work_dir / "fused.py"),
        str(work_dir / "fused.pth"),
        work_dir=str(work_dir),
        cfg_options={"experiment_name": f"fused{index}", "log_level": "WARNING"},
    )
    accuracy = float(next(iter(runner.test().values())))
    release(runner)
    return accuracy


def main() -> int:
    """Run rounds until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="default: 30")
    args = parser.parse_args()
    torch.manual_seed(0)
    until = time.monotonic() + 60 * args.minutes
    readings: list[Reading] = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_shapes("data/shapes", layouts=("imagenet",), num_train=120, num_val=24, image_size=64)
        while time.monotonic() < until or len(readings) < 6:
            accuracy = run_round(len(readings))
            readings.append(take_reading())
            shown = readings[-1]
            print(
                f"round {len(readings)}: {shown.memory_mb:.0f} MB, {shown.files} files, "
                f"{shown.threads} threads, top-1 {accuracy:.0f} %",
                flush=True,
            )
        os.chdir("/")
    # The first rounds fill caches: thirds are taken of what comes after them.
    readings = readings[2:]
    third = max(1, len(readings) // 3)
    first, last = (
        Reading(*(statistics.median(column) for column in zip(*part, strict=True)))
        for part in (readings[:third], readings[-third:])
    )
    print(f"first third: {first}\nlast third:  {last}")
    is_flat = (
        last.memory_mb <= first.memory_mb + _ALLOWED_GROWTH_MB
        and last.files <= first.files
        and last.threads <= first.threads
    )
    print("flat" if is_flat else "GREW")
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
