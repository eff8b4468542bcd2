"""Find the operators that take the time of a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

#: Number of runs that a profile is the mean of.
RUNS = 5
_LEAST = 0.01  # of the time of all operators

#: One entry of a profile: ``operator``, ``shapes``, ``calls`` and ``ms``.
Operator = dict[str, Any]


def profile_operators(run: Callable[[], object], device: torch.device) -> list[Operator]:
    """Find the operators that take the time of a run, with PyTorch's profiler.

    Args:
        run: Function to profile; it should have run before.
        device: Device that it runs on.

    Returns:
        The operators that take at least 1 % of the time, longest first: ``operator``, ``shapes`` of
        its first two inputs, ``calls`` per run, and ``ms`` per run. Empty if the run is not in
        PyTorch.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(RUNS):
            run()
        if on_gpu:
            torch.cuda.synchronize(device)
    times = []
    for event in profiler.key_averages(group_by_input_shape=True):
        total = _time_on_gpu(event) if on_gpu else event.self_cpu_time_total
        shapes = [list(shape) for shape in event.input_shapes if shape][:2]
        if shapes:  # or else it is not an operator, but a group of operators
            times.append((event.key, shapes, event.count, total / 1e3))
    return group_operators(times)


def group_operators(
    times: Iterable[tuple[str, Sequence[Sequence[int]], int, float]],
) -> list[Operator]:
    """Add up the calls of equal operators.

    Args:
        times: Name, shapes of the inputs, number of calls in ``RUNS`` runs, and their time in ms.

    Returns:
        As :func:`profile_operators`.
    """
    groups: dict[str, Operator] = {}
    for name, shapes, calls, ms in times:
        new = dict(operator=name, shapes=[list(shape) for shape in shapes], calls=0.0, ms=0.0)
        group = groups.setdefault(f"{name} {shapes}", new)
        group["calls"] += calls / RUNS
        group["ms"] += ms / RUNS
    least = _LEAST * sum(group["ms"] for group in groups.values())
    rows = [dict(group, calls=round(group["calls"], 2)) for group in groups.values()]
    return sorted((row for row in rows if row["ms"] >= least), key=lambda row: -row["ms"])


def _time_on_gpu(event: Any) -> float:
    # torch 2.1 has only the older name.
    name = "self_device_time_total"
    return getattr(event, name if hasattr(event, name) else "self_cuda_time_total")
