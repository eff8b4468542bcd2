"""Time several runs on one machine, in turns."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch.utils.benchmark import timer as synchronised_clock

# Rest between runs in seconds. Worker threads stay active for a while after a run; without a rest
# the next run, which may have other workers, would share the cores with them.
_REST = 0.02


@dataclass(frozen=True)
class Timing:
    """Times of repeated runs, in milliseconds.

    Attributes:
        median: Median of the times.
        low: First quartile of the times.
        high: Third quartile of the times.
        fastest: Shortest of the times.
        slowest: Longest of the times.
        rounds: Number of timed runs.
    """

    median: float
    low: float
    high: float
    fastest: float
    slowest: float
    rounds: int


def time_interleaved(
    runs: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    warmup: int = 2,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Timing]:
    """Time several runs in turns, so that changes of the machine's speed affect all of them.

    If there is a GPU, the clock waits until its work is finished. Before each run there is a rest
    of 20 ms.

    Args:
        runs: Functions to time, by name.
        rounds: Number of timed runs of each function, at least 2.
        warmup: Number of untimed runs of each function before these.
        advance: Function that is called after each run, timed or not.

    Returns:
        The times, by name.

    Raises:
        ValueError: There are fewer than 2 rounds, or the warm-up is negative.
    """
    if rounds < 2 or warmup < 0:
        raise ValueError(
            f"timing needs at least 2 rounds and no negative warm-up, found {rounds} and {warmup}"
        )
    samples: dict[str, list[float]] = {name: [] for name in runs}
    gc.collect()
    gc.disable()
    try:
        for round_index in range(warmup + rounds):
            for name, run in runs.items():
                time.sleep(_REST)
                start = synchronised_clock()
                run()
                elapsed = synchronised_clock() - start
                if round_index >= warmup:
                    samples[name].append(1e3 * elapsed)
                advance()
    finally:
        gc.enable()
    return {name: _summarise(times) for name, times in samples.items()}


def _summarise(times: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high, min(times), max(times), len(times))
