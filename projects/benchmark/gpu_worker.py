"""The process that measures for mmvanilla gpu_report; another one goes on where it ends.

A request comes as JSON on the standard input, and each event leaves as one line of JSON on the
standard output: the machine, the begin of a cell, the result of a cell, and the end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from mmvanilla.version import __version__
from projects.benchmark.gpu_cells import DTYPES, BrokenDevice, GroupRun, numeric_settings
from projects.benchmark.gpu_networks import Networks
from projects.benchmark.gpu_plan import full_plan, small_plan
from projects.benchmark.gpu_state import describe_gpu
from projects.benchmark.machine import describe_machine, peak_gflops

#: The exit status if the device does not work any more in this process.
BROKEN = 3

_CEILINGS = ("fp32", "tf32", "fp16", "bf16")


def work(request: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    """Measure the cells of a plan that are not done, group by group, until the time is up.

    Args:
        request: ``device``, ``small``, ``done`` (names of cells), and ``until`` (seconds since the
            epoch, after which no group begins).
        send: Function that is called with each event.

    Raises:
        BrokenDevice: The device does not work any more; the cell that broke it was sent.
    """
    device = torch.device(request["device"])
    if device.index is not None:
        torch.cuda.set_device(device)
    send(dict(machine=_describe(device, request["small"])))
    plan = small_plan() if request["small"] else full_plan()
    done = set(request["done"])
    networks = Networks()
    for group in plan.groups:
        cells = [cell for cell in group.cells() if cell[0] not in done]
        if not cells:
            continue
        if time.time() >= request["until"]:
            send(dict(end="out of time"))
            return
        GroupRun(
            plan,
            group,
            device,
            networks,
            lambda name: send(dict(begin=name)),
            lambda name, entry: send(dict(cell=name, entry=entry)),
        ).measure(cells)
    send(dict(end="finished"))


def _describe(device: torch.device, small: bool) -> dict[str, Any]:
    machine = describe_machine(device)
    machine["versions"]["mmvanilla"] = __version__
    if device.type == "cuda":
        machine["gpu_details"] = describe_gpu(device)
    machine["default_tf32"] = {
        "convolutions": torch.backends.cudnn.allow_tf32,
        "matrix products": torch.backends.cuda.matmul.allow_tf32,
    }
    if not small:  # a trial needs no ceilings, which take long on a CPU
        machine["peak_gflops"] = {}
        for name in _CEILINGS:
            with numeric_settings(name):
                dtype = DTYPES.get(name, torch.float32)
                machine["peak_gflops"][name] = peak_gflops(device, dtype)
    return machine


def main() -> int:
    """Serve the one request that is on the standard input."""
    # Libraries print, compilers most of all: only events may go to the standard output.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(event: dict[str, Any]) -> None:
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    try:
        work(json.load(sys.stdin), send)
    except BrokenDevice as error:
        print(error, file=sys.stderr)
        return BROKEN
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # destructors could wait for a broken device for ever
