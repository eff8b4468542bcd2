"""Time several runs on one machine, in turns."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch.utils.benchmark import timer as synchronised_clock

# Rest between runs in seconds. Worker threads stay active for a while after a run; without a rest
# the next run, which may have other workers, would share the cores with them.
_REST = 0.02

_Sample = TypeVar("_Sample")


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
    samples = take_turns(runs, _time_rested, warmup + rounds, advance)
    return {name: summarise(times[warmup:]) for name, times in samples.items()}


def take_turns(
    runs: Mapping[str, Callable[[], object]],
    measure: Callable[[Callable[[], object]], _Sample],
    rounds: int,
    advance: Callable[[], None] = lambda: None,
    drop: Callable[[str, Exception], None] | None = None,
) -> dict[str, list[_Sample]]:
    """Measure several runs in turns, without garbage collections in between.

    Args:
        runs: Functions to measure, by name.
        measure: Function that calls a run once and returns what it measured.
        rounds: Number of turns of each run.
        advance: Function that is called after each turn of a run.
        drop: Function that is called with the name of a run that fails and with its error; this run
            gets no more turns and is not in the result. None: the error is raised.

    Returns:
        What ``measure`` returned in each round, by name.
    """
    samples: dict[str, list[_Sample]] = {name: [] for name in runs}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name in list(samples):
                try:
                    samples[name].append(measure(runs[name]))
                except Exception as error:
                    if drop is None:
                        raise
                    del samples[name]
                    drop(name, error)
                advance()
    finally:
        gc.enable()
    return samples


def _time_rested(run: Callable[[], object]) -> float:
    time.sleep(_REST)
    start = synchronised_clock()
    run()
    return 1e3 * (synchronised_clock() - start)


def summarise(times: Sequence[float]) -> Timing:
    """Summarise at least 2 times in milliseconds."""
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high, min(times), max(times), len(times))
