"""Start the processes of a report on a GPU: the one that measures, and the GPU tests."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from xml.etree import ElementTree

from mmvanilla.utils.processes import ROOT, end_group, python_environment
from projects.benchmark.gpu_worker import BROKEN

_GRACE = 120.0  # seconds that a group may take after the time is up
_WORKER = "projects.benchmark.gpu_worker"


class WorkerEnded(RuntimeError):
    """The measuring process ended before its work did; the message says how.

    Attributes:
        out_of_time: True if it was ended because the time for the whole report is up.
    """

    def __init__(self, reason: str, out_of_time: bool = False) -> None:
        super().__init__(reason)
        self.out_of_time = out_of_time


class Worker:
    """A process that runs :mod:`projects.benchmark.gpu_worker`; leaving the context ends it.

    Args:
        request: The request, as in :func:`projects.benchmark.gpu_worker.work`.
        log: File that what it prints is appended to.
    """

    def __init__(self, request: dict[str, Any], log: Path) -> None:
        self._request, self._log = request, log
        self._lines: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> Worker:
        log = self._log.open("ab")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=python_environment(),
                start_new_session=True,  # so that the compilers that it starts end with it
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            json.dump(self._request, stdin)
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        end_group(self._process)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def events(self, patience: float, until: float) -> Iterator[dict[str, Any]]:
        """Give the events of the process, the last of which says how it ended.

        Args:
            patience: Seconds to wait for one event.
            until: Seconds since the epoch after which the process begins nothing new.

        Raises:
            WorkerEnded: The process ended too early, or was too slow.
        """
        while True:
            left = until + _GRACE - time.time()
            try:
                line = self._lines.get(timeout=max(0.0, min(patience, left)))
            except queue.Empty:
                if left <= patience:
                    raise WorkerEnded("the time is up", out_of_time=True) from None
                raise WorkerEnded(f"it did not end within {patience:g} s") from None
            if line is None:
                raise WorkerEnded(_describe_end(self._process))
            event = json.loads(line)
            yield event
            if "end" in event:
                return


def run_gpu_tests(log: Path, seconds: float) -> dict[str, Any]:
    """Run the tests that are marked ``gpu``, in a process of their own.

    Args:
        log: File that what they print is appended to.
        seconds: Time after which they are stopped.

    Returns:
        A dict for JSON: the numbers of ``passed``, ``failed`` and ``skipped`` tests, ``failures``
        and ``skips`` (names and reasons) and ``seconds``; or ``not_run`` with the reason.
    """
    if not (ROOT / "tests" / "conftest.py").is_file():
        return dict(not_run="an installed package has no tests; run the tool in the repository")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "tests.xml")
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", f"--junitxml={report}"]
        started = time.monotonic()
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, "-p", "no:cacheprovider", "tests"],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                env=python_environment(),
                start_new_session=True,
            )
            try:
                process.wait(timeout=seconds)
            except BaseException as error:
                end_group(process)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                return dict(not_run=f"they did not end within {seconds:.0f} s")
        if not report.is_file():
            return dict(not_run=f"pytest ended with status {process.returncode}; see {log.name}")
        results = read_junit(report)
    return dict(results, seconds=round(time.monotonic() - started, 1))


def read_junit(path: Path) -> dict[str, Any]:
    """Count the tests in a report of pytest's ``--junitxml``.

    Args:
        path: Path of the ``.xml`` file, which pytest has just written.
    """
    counts = dict(passed=0, failed=0, skipped=0)
    failures: dict[str, str] = {}
    skips: dict[str, str] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        outcome = "passed"
        for child in case:
            words = " ".join((child.get("message") or child.text or "").split())[:200]
            if child.tag in ("failure", "error"):
                outcome, failures[name] = "failed", words
            elif child.tag == "skipped":
                outcome, skips[name] = "skipped", words
        counts[outcome] += 1
    return dict(counts, failures=failures, skips=skips)


def _describe_end(process: subprocess.Popen[Any]) -> str:
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    if ended.si_code != os.CLD_EXITED:
        return f"the process was ended by {signal.Signals(ended.si_status).name}"
    if ended.si_status == BROKEN:
        return "the device did not work any more"
    return f"the process ended with status {ended.si_status}"
