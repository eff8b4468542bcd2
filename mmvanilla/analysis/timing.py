"""Timing several runs against each other on one machine."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch.utils.benchmark import timer as synchronised_clock

# Worker threads spin for a while after a run, waiting for more work; without a rest the next run,
# which may have other workers, would share its cores with them.
_REST = 0.02


@dataclass(frozen=True)
class Timing:
    """Times of repeated runs, in milliseconds.

    Attributes:
        median: Median time.
        low: First quartile.
        high: Third quartile.
        fastest: Shortest time.
        slowest: Longest time.
        rounds: Number of runs.
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
    """Time several things in turns, so that a machine whose speed drifts does so for all of them.

    The clock waits for a GPU before it is read, if there is one. Before each run there is a rest of
    20 ms.

    Args:
        runs: The runs to time, by name.
        rounds: Number of timed runs of each, at least 2.
        warmup: Number of untimed runs of each before.
        advance: Called after each run, timed or not.

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
