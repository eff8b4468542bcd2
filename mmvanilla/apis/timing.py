"""Time several runs on one machine, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch.utils.benchmark import timer as synchronised_clock

# Seconds between runs: the worker threads of one would share the cores with those of the next.
_REST = 0.02


@dataclass(frozen=True)
class Timing:
    """Times of repeated runs in milliseconds: median, first and third quartile."""

    median: float
    low: float
    high: float


def time_interleaved(
    runs: Mapping[str, Callable[[], object]], rounds: int = 15, warmup: int = 2
) -> dict[str, Timing]:
    """Time several runs in turns, so that changes of the machine's speed affect all of them.

    If there is a GPU, the clock waits until its work is finished.

    Args:
        runs: Functions to time, by name.
        rounds: Number of timed runs of each function, at least 2.
        warmup: Number of untimed runs of each function before these.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(warmup + rounds):
        for name, run in runs.items():
            time.sleep(_REST)
            start = synchronised_clock()
            run()
            times[name].append(1e3 * (synchronised_clock() - start))
    return {name: _summarise(samples[warmup:]) for name, samples in times.items()}


def _summarise(times: Sequence[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high)
