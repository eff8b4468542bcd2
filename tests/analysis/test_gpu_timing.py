"""The order in which a run on a GPU is measured, with stand-ins for CUDA, and failing turns."""

import types

import pytest
import torch

from mmvanilla.analysis.gpu_timing import DeviceClock
from mmvanilla.analysis.timing import take_turns

CUDA = torch.device("cuda")


@pytest.fixture
def events(monkeypatch):
    """What happens on a made-up GPU, in order."""
    happened = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            happened.append("record")

        def elapsed_time(self, last):
            return 1.25

    class Buffer:
        def zero_(self):
            happened.append("flush")

    def empty(size, dtype, device):
        happened.append(size)
        return Buffer()

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: happened.append("wait"))
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda device: types.SimpleNamespace(L2_cache_size=200 * 2**20),
    )
    monkeypatch.setattr(torch, "empty", empty)
    return happened


def test_clock_starts_on_an_idle_gpu_with_a_cold_cache_and_waits_for_the_end(events):
    clock = DeviceClock(CUDA)
    assert events == [400 * 2**20]  # more than the cache holds
    events.clear()
    sample = clock(lambda: events.append("run"))
    assert events == ["flush", "wait", "record", "run", "record", "wait"]
    assert sample.on_device == 1.25
    assert sample.latency > 0


def test_cache_is_left_alone_if_asked(events):
    DeviceClock(CUDA, flush=False)(lambda: events.append("run"))
    assert events == ["wait", "record", "run", "record", "wait"]


def test_on_a_cpu_both_times_are_the_host_s():
    sample = DeviceClock(torch.device("cpu"))(lambda: torch.ones(10).sum())
    assert sample.latency == sample.on_device > 0


def test_a_run_that_fails_leaves_the_turns_of_the_others():
    failed = []
    count = iter(range(100))

    def fragile():
        if next(count) == 1:
            raise RuntimeError("out of memory")

    runs = {"a": lambda: 1, "b": fragile, "c": lambda: 3}
    samples = take_turns(
        runs, lambda run: run(), 4, drop=lambda name, error: failed.append((name, str(error)))
    )
    assert samples == {"a": [1] * 4, "c": [3] * 4}
    assert failed == [("b", "out of memory")]
    with pytest.raises(ZeroDivisionError):
        take_turns({"a": lambda: 1 / 0}, lambda run: run(), 1)
