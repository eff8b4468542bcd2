"""Time single runs on a GPU: by the host's clock and by CUDA events, with a cold cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

# At least so much is overwritten to empty the L2 cache; the largest ones have about 100 MB.
_FLUSHED_BYTES = 256 * 2**20


class Sample(NamedTuple):
    """The time of one run.

    Attributes:
        latency: Milliseconds from the call until the GPU has finished, by the host's clock: what a
            caller waits for.
        on_device: Milliseconds between two CUDA events, one before the first kernel and one behind
            the last one. It lacks the time until the first kernel is launched. On a CPU it equals
            ``latency``.
    """

    latency: float
    on_device: float


class DeviceClock:
    """Measures single runs on a device.

    The clock starts when the device is idle, and stops when it has finished the run. On a GPU a
    buffer larger than its L2 cache is overwritten before that, so that no weights or images are
    left in the cache from the run before; this is not part of the time.

    Args:
        device: Device of the runs.
        flush: Whether to empty the L2 cache of a GPU before each run. Default: True.
    """

    def __init__(self, device: torch.device, flush: bool = True) -> None:
        self.device = device
        self._buffer: torch.Tensor | None = None
        if flush and device.type == "cuda":
            properties: Any = torch.cuda.get_device_properties(device)
            size = max(_FLUSHED_BYTES, 2 * getattr(properties, "L2_cache_size", 0))
            self._buffer = torch.empty(size, dtype=torch.uint8, device=device)

    def __call__(self, run: Callable[[], object]) -> Sample:
        """Measure one run; CUDA kernels must be on the current stream of the device."""
        if self.device.type != "cuda":
            begin = time.perf_counter()
            run()
            elapsed = 1e3 * (time.perf_counter() - begin)
            return Sample(elapsed, elapsed)
        if self._buffer is not None:
            self._buffer.zero_()
        first = torch.cuda.Event(enable_timing=True)
        last = torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(self.device)
        begin = time.perf_counter()
        first.record()
        run()
        last.record()
        torch.cuda.synchronize(self.device)
        elapsed = 1e3 * (time.perf_counter() - begin)
        return Sample(elapsed, first.elapsed_time(last))
