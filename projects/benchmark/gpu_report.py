"""Run the GPU tests and the benchmark of a GPU within a time limit, and keep what was measured.

The results file is written after every cell, so a report that was stopped goes on where it was. The
measuring is done by another process (:mod:`projects.benchmark.gpu_worker`): if a cell breaks the
device, hangs or kills that process, it is recorded with the reason, and a new process goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from mmvanilla.checkpoints.writing import check_writable, write_text
from mmvanilla.utils.paths import tool_command
from projects.benchmark.gpu_page import MARK, render
from projects.benchmark.gpu_plan import full_plan, small_plan
from projects.benchmark.gpu_processes import Worker, WorkerEnded, run_gpu_tests

#: Called with the name of the current work, the number of finished cells, and that of all.
Step = Callable[[str, int, int], None]

_FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """The settings of a report.

    Attributes:
        device: Name of the device.
        small: Whether to try every question with small networks and images. Default: False.
        minutes: Time in minutes after which no more cells are begun. 0: only the page is written.
        tests: Whether to run the tests that are marked ``gpu`` first. Default: True.
        retry: Whether to measure again what failed in an earlier run. Default: False.
        patience: Seconds after which a cell that does not end is given up. Default: 300.
    """

    device: str = "cuda"
    small: bool = False
    minutes: float = 30.0
    tests: bool = True
    retry: bool = False
    patience: float = 300.0

    def check(self) -> None:
        """Refuse settings that cannot work, before anything is done.

        Raises:
            ValueError: A number is out of range, or the device is no GPU and the plan not small.
            RuntimeError: The device does not exist.
        """
        # Written with `not` so that NaN fails.
        if not self.minutes >= 0 or not self.patience > 0:
            raise ValueError(
                f"minutes must be at least 0 and patience more than 0 seconds, found "
                f"{self.minutes} and {self.patience}"
            )
        try:
            kind = torch.device(self.device).type
        except RuntimeError as error:
            raise ValueError(
                f"unknown device {self.device!r}; give cuda, cuda:1, … or cpu"
            ) from error
        if kind != "cuda" and not self.small:
            raise ValueError(
                f"the report is for a GPU, found --device {self.device}; add --small for a trial "
                f"of a few seconds, or take `{tool_command('benchmark')}`"
            )
        if kind == "cuda" and self.minutes and not torch.cuda.is_available():
            raise RuntimeError(
                f"no device {self.device}: torch {torch.__version__} sees no GPU; take --device "
                "cpu --small for a trial, or install a torch that fits the driver"
            )


def run_report(
    settings: Settings,
    results_path: Path,
    page: Path,
    command: str,
    step: Step = lambda what, done, total: None,
) -> dict[str, Any]:
    """Measure what the results file lacks, until the time is up, and write the page.

    Args:
        settings: Settings of the report.
        results_path: Path of the ``.json`` file with what was measured; it may exist. A log of the
            processes is written beside it.
        page: Path of the Markdown page to write.
        command: The command line, for the page.
        step: Function that is called whenever something was done.

    Returns:
        The results: ``machine``, ``tests``, and ``cells`` by name.

    Raises:
        ValueError: The settings do not fit, or the file or page is not one of ours.
        RuntimeError: The device does not exist, or the measuring process cannot start.
    """
    settings.check()
    results = load_results(results_path, settings)
    _refuse_other_page(page)
    check_writable([results_path, page], overwrite=True)
    log = results_path.with_suffix(".log")
    until = time.time() + 60 * settings.minutes
    plan = small_plan() if settings.small else full_plan()
    names = list(plan.cells())

    def save() -> None:
        write_text(json.dumps(results, indent=1) + "\n", results_path, overwrite=True)

    if settings.minutes:
        results["runs"].append(dict(command=command, date=f"{datetime.now():%Y-%m-%d %H:%M}"))
        save()
        if settings.tests and "tests" not in results:
            step("running the GPU tests", 0, len(names))
            # At most a third of the time, so that something is measured in any case.
            results["tests"] = run_gpu_tests(log, 20 * settings.minutes)
            save()
        _measure(settings, results, names, until, log, save, step)
    write_text(render(results, names), page, overwrite=True)
    return results


def load_results(path: Path, settings: Settings) -> dict[str, Any]:
    """Read the results of an earlier run, or begin new ones.

    Args:
        path: Path of the results file.
        settings: Settings of this run; with ``retry`` the cells that failed are forgotten.

    Raises:
        ValueError: The file is not one of ours, or is of another plan or device.
    """
    fresh: dict[str, Any] = dict(
        format=_FORMAT, small=settings.small, device=settings.device, runs=[], cells={}
    )
    if not path.exists():
        return fresh
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        if results["format"] != _FORMAT or set(fresh) - set(results):
            raise KeyError("format")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} does not hold results of this tool; name another folder with --out"
        ) from error
    for key in ("small", "device"):
        if results[key] != fresh[key]:
            raise ValueError(
                f"{path} holds results with {key}={results[key]!r}, and this run has "
                f"{fresh[key]!r}; name another folder with --out, or add --fresh"
            )
    if settings.retry:
        results["cells"] = {
            name: entry for name, entry in results["cells"].items() if "ms" in entry
        }
        results.pop("tests", None)
    return results


def _refuse_other_page(page: Path) -> None:
    if page.is_file() and not page.read_text(encoding="utf-8").startswith(MARK):
        raise ValueError(
            f"{page} was not written by this tool and would be lost; name another file with --page"
        )


def _measure(
    settings: Settings,
    results: dict[str, Any],
    names: list[str],
    until: float,
    log: Path,
    save: Callable[[], None],
    step: Step,
) -> None:
    cells = results["cells"]
    while time.time() < until and any(name not in cells for name in names):
        done_before = len(cells)
        request = dict(device=settings.device, small=settings.small, done=list(cells), until=until)
        current: str | None = None
        with Worker(request, log) as worker:
            try:
                for event in worker.events(settings.patience, until):
                    if "machine" in event:
                        _keep_machine(results, event["machine"])
                    elif "begin" in event:
                        current = event["begin"]
                        step(event["begin"], len(cells), len(names))
                    elif "cell" in event:
                        cells[event["cell"]] = event["entry"]
                    else:
                        return
                    if "begin" not in event:
                        save()
            except WorkerEnded as error:
                if error.out_of_time:
                    return
                if current is not None and current not in cells:
                    cells[current] = dict(not_measured=str(error))
                    save()
        if len(cells) == done_before:
            raise RuntimeError(
                f"the measuring process ends before it measures anything; read the end of {log}"
            )


def _keep_machine(results: dict[str, Any], machine: dict[str, Any]) -> None:
    known = results.setdefault("machine", machine)
    for what, before, now in (
        ("GPU", known.get("gpu"), machine.get("gpu")),
        ("CPU", known["cpu"], machine["cpu"]),
        ("torch", known["versions"]["torch"], machine["versions"]["torch"]),
        ("mmvanilla", known["versions"]["mmvanilla"], machine["versions"]["mmvanilla"]),
    ):
        if before != now:
            raise ValueError(
                f"the results there are of another {what} ({before}; here: {now}), and figures of "
                "two cannot be compared; name another folder with --out, or add --fresh"
            )
