"""Find the operators that take the time of a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_RUNS = 5
_MOST = 8


def profile_operators(run: Callable[[], object], device: torch.device) -> list[dict[str, Any]]:
    """Find the operators that take most of the time of a run, with PyTorch's profiler.

    Args:
        run: Function to profile; it should have run before.
        device: Device that it runs on.

    Returns:
        The 8 operators that take longest, longest first: ``operator``, ``shapes`` of its first two
        inputs, ``calls`` per run, and ``ms`` per run. Empty if the run is not in PyTorch.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(_RUNS):
            run()
        if on_gpu:
            torch.cuda.synchronize(device)
    rows = []
    for event in profiler.key_averages(group_by_input_shape=True):
        total = _time_on_gpu(event) if on_gpu else event.self_cpu_time_total
        shapes = [shape for shape in event.input_shapes if shape][:2]
        if not shapes:
            continue  # not an operator, but a group of operators
        rows.append(
            dict(
                operator=event.key,
                shapes=[list(shape) for shape in shapes],
                calls=event.count / _RUNS,
                ms=total / 1e3 / _RUNS,
            )
        )
    return sorted(rows, key=lambda row: -row["ms"])[:_MOST]


def _time_on_gpu(event: Any) -> float:
    # torch 2.1 has only the older name.
    name = "self_device_time_total"
    return getattr(event, name if hasattr(event, name) else "self_cuda_time_total")
