"""Runs the project's tools in forks of one process that has imported everything heavy.

Starting Python and importing torch and a toolbox takes many times longer than most refusals. Here
that is done once; each run of a tool is a fork, so that no run sees anything of another one.

Protocol: a line of JSON comes in for each run, ``{tool, arguments, folder, limits, timeout}``, and
a line of JSON goes out, ``{status}``: the exit status, negative for a signal, as subprocess has it.
An order with ``kill`` is for tests of what a killed process leaves behind.
What a tool prints goes to ``stdout.txt`` and ``stderr.txt`` beside its folder.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parents[2] / "tools"
_HEAVY = (
    "mmpretrain.apis",
    "mmpretrain.datasets",
    "mmdet.apis",
    "mmdet.datasets",
    "mmseg.apis",
    "onnxruntime",
    "mmvanilla.deploy.fuse_checkpoint",
    "mmvanilla.apis.runners",
)


def import_heavy() -> None:
    """Import what tools import; a toolbox that is not installed is left out."""
    import torch

    torch.set_num_threads(1)  # no worker threads, which a fork would not have
    for name in _HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def run_forked(order: dict[str, Any]) -> int:
    """Run one tool in a fork and return its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            status = _run_tool(order)
        finally:
            os._exit(status)
    until = time.monotonic() + order.get("timeout", 120)
    kill_at = _when_to_kill(order)
    while time.monotonic() < until:
        done, wait_status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(wait_status)
        if kill_at():
            os.kill(pid, getattr(signal, order["kill"].get("signal", "SIGKILL")))
            kill_at = _never
        time.sleep(0.0005 if "kill" in order else 0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -int(signal.SIGALRM)


def _never() -> bool:
    return False


def _when_to_kill(order: dict[str, Any]) -> Callable[[], bool]:
    """When the run is to be killed: some time after its start, or after it begins to write.

    ``kill`` in an order has ``after`` in seconds and, for the second kind, ``writes``: how many
    changes of the folder to wait for before the time runs.
    """
    if "kill" not in order:
        return _never
    left, delay = order["kill"].get("writes", 0), order["kill"]["after"]
    folder = Path(order["folder"])
    names = _names(folder)
    since = time.monotonic()

    def is_due() -> bool:
        nonlocal left, names, since
        if left:
            found = _names(folder)
            if found != names:
                names, since, left = found, time.monotonic(), left - 1
            return False
        return time.monotonic() >= since + delay

    return is_due


def _names(folder: Path) -> set[str]:
    found = set()
    for parent, folders, files in os.walk(folder):
        found |= {os.path.join(parent, name) for name in (*folders, *files)}
    return found


def _run_tool(order: dict[str, Any]) -> int:
    folder = Path(order["folder"])
    for stream, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        target = os.open(folder.parent / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, stream)
    os.chdir(folder)
    for limit, value in order.get("limits", {}).items():
        kind = getattr(resource, limit)
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(order.get("environment", {}))
    script = TOOLS / order["tool"]
    sys.argv = [str(script), *order["arguments"]]
    sys.path[0] = str(TOOLS)
    status: object = 0
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as error:
        status = error.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(status or 0)  # type: ignore[call-overload]


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever an import prints is no answer
    import_heavy()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps({"status": run_forked(json.loads(line))}), file=answers, flush=True)


if __name__ == "__main__":
    main()
