"""Measure the cells of one group of the report on a GPU; a cell that fails leaves the others."""

from __future__ import annotations

import contextlib
import copy
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from mmvanilla.apis.timing import summarise, take_turns
from mmvanilla.utils.numerics import largest, relative_difference
from projects.benchmark.gpu_networks import Networks
from projects.benchmark.gpu_plan import GpuPlan, Group
from projects.benchmark.gpu_state import read_state
from projects.benchmark.gpu_timing import DeviceClock, Sample
from projects.benchmark.graphs import Run, Unmeasurable
from projects.benchmark.machine import peak_memory, saved_for_backward
from projects.benchmark.networks import Contender
from projects.benchmark.runtimes import prepare
from projects.benchmark.training import loss_of, training_step

#: Called with the name of a cell when the work on it begins.
Begin = Callable[[str], None]
#: Called with the name of a cell and what was found out about it.
Record = Callable[[str, dict[str, Any]], None]

_FEWEST_ROUNDS = 5
_WARM_UP = 3  # runs
_LOSS_SCALE = 1024.0
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class BrokenDevice(RuntimeError):
    """The device no longer works in this process, as after an illegal access to its memory."""


def explain(error: BaseException) -> str:
    """Say in one line why a cell was not measured."""
    words = " ".join(str(error).split()) or "no message"
    if isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in words:
        return f"out of memory: {words[:150]}"
    if isinstance(error, Unmeasurable):
        return words[:200]
    return f"{type(error).__name__}: {words[:200]}"


class GroupRun:
    """Prepares the cells of a group, checks their outputs, and times them in turns.

    Args:
        plan: Plan that the group belongs to.
        group: Group to measure.
        device: Device to run on.
        networks: Networks that were built before.
        begin: Function that is called when the work on a cell begins.
        record: Function that is called with the result of each cell: ``ms`` and ``device_ms`` (as
            in :class:`~mmvanilla.apis.timing.Timing`), or ``not_measured`` with the reason.
    """

    def __init__(
        self,
        plan: GpuPlan,
        group: Group,
        device: torch.device,
        networks: Networks,
        begin: Begin,
        record: Record,
    ) -> None:
        self.plan, self.group, self.device, self.networks = plan, group, device, networks
        self.begin, self.record = begin, record
        self._entries: dict[str, dict[str, Any]] = {}
        self._runs: dict[str, Run] = {}
        self._expected: dict[str, list[Tensor]] = {}

    def measure(self, cells: list[tuple[str, str, str]]) -> None:
        """Measure cells, each given by its name, network and form.

        Raises:
            BrokenDevice: The device does not work any more; the cell that broke it is recorded.
        """
        with numeric_settings(self.group.precision):
            images = _images(self.group, self.device)
            for name, network, form in cells:
                self.begin(name)
                entry = self._entries[name] = {}
                try:
                    self._runs[name] = self._prepare(network, form, images, entry)
                except Exception as error:
                    self._fail(name, error)
            self._time()
        self._runs.clear()
        self._expected.clear()
        torch.compiler.reset()
        _free(self.device)

    def _fail(self, name: str, error: BaseException) -> None:
        self._runs.pop(name, None)
        self.record(name, {**self._entries[name], "not_measured": explain(error)})
        cause: BaseException | None = error
        while cause is not None:  # the frames of its traceback hold tensors
            cause.__traceback__ = None
            cause = cause.__cause__ or cause.__context__
        _free(self.device)
        if _is_broken(self.device):
            raise BrokenDevice(f"{self.device} does not work any more after {name}")

    def _prepare(self, network: str, form: str, images: Tensor, entry: dict[str, Any]) -> Run:
        if self.group.question == "detector":
            return self.networks.detector(network, images)
        contender = self.networks.get(network, self.plan.width_mult)
        entry.update(label=contender.name, published_top1=contender.published_top1)
        if self.group.question == "training":
            return self._prepare_training(contender, form, images, entry)
        features = self.group.question == "features"
        entry["gmacs"] = self.networks.gmacs(contender, tuple(images.shape), features)
        run = prepare(contender, form, images, features)
        output = run()
        if form != "onnxruntime":  # it was compared when it was exported
            entry["difference"] = self._compare(contender, images, features, output)
        return run

    def _compare(self, contender: Contender, images: Tensor, features: bool, output: Any) -> float:
        """Compare an output with that of the fused network in fp32, without TF32, right here."""
        if contender.name not in self._expected:
            with numeric_settings("fp32"):
                expected = prepare(contender, "fused", images.float(), features)()
            self._expected[contender.name] = _listed(expected)
        pairs = zip(self._expected[contender.name], _listed(output), strict=True)
        return largest(relative_difference(ours, found.float()) for ours, found in pairs)

    def _prepare_training(
        self, contender: Contender, form: str, images: Tensor, entry: dict[str, Any]
    ) -> Run:
        model = copy.deepcopy(contender.model).to(self.device).train()
        if form == "channels_last":
            layout: Any = dict(memory_format=torch.channels_last)
            model, images = model.to(**layout), images.to(**layout)
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(1000, (len(images),), generator=generator).to(self.device)
        plain = loss_of(model, images, labels)
        kind = self.group.precision.removeprefix("amp-")
        autocast = self.group.precision.startswith("amp-")
        scale = _LOSS_SCALE if kind == "fp16" else 1.0

        def forward() -> Tensor:
            # A context for each step: autocast keeps the casts of weights until it ends.
            with torch.autocast(self.device.type, DTYPES.get(kind), enabled=autocast):
                loss = plain()
            return loss * scale

        entry["saved_mb"] = saved_for_backward(forward, model.parameters()) / 1e6
        step = training_step(model, forward)
        step()  # now the gradients exist, and do not count for the peak
        peak = peak_memory(step, self.device)
        entry["peak_mb"] = None if peak is None else peak / 1e6
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        # With fixed scaling fp16 may overflow, so this is told and no failure.
        entry["finite"] = all(bool(gradient.isfinite().all()) for gradient in gradients)
        return step

    def _time(self) -> None:
        clock = DeviceClock(self.device)
        for name in list(self._runs):
            self.begin(name)
            try:
                for _ in range(_WARM_UP):
                    clock(self._runs[name])
            except Exception as error:
                self._fail(name, error)
        if not self._runs:
            return
        started = time.perf_counter()
        take_turns(self._runs, clock, 1, drop=self._fail)
        turn = max(time.perf_counter() - started, 1e-6)
        rounds = min(self.plan.rounds, max(_FEWEST_ROUNDS, int(self.group.seconds / turn)))
        before = read_state(self.device)
        samples = take_turns(self._runs, clock, rounds, drop=self._fail)
        state = dict(before=before, after=read_state(self.device))
        for name, measured in samples.items():
            entry = self._entries[name]
            entry.update(ms=_summary(measured, 0), device_ms=_summary(measured, 1), state=state)
            self.record(name, entry)


@contextlib.contextmanager
def numeric_settings(precision: str) -> Iterator[None]:
    """Choose TF32 or not, and let cuDNN choose its algorithms by trying them.

    Args:
        precision: Entry of :data:`projects.benchmark.gpu_plan.PRECISIONS`; ``'fp32'`` switches
            TF32 off.
    """
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32 = matmul.allow_tf32 = precision != "fp32"
    cudnn.benchmark = True
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before


def _images(group: Group, device: torch.device) -> Tensor:
    shape = (group.batch, 3, group.height, group.width)
    images = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return images.to(device, DTYPES.get(group.precision, torch.float32))


def _listed(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


def _summary(samples: list[Sample], index: int) -> dict[str, Any]:
    return asdict(summarise([sample[index] for sample in samples]))


def _free(device: torch.device) -> None:
    with contextlib.suppress(Exception):  # a broken device is found out by _is_broken
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _is_broken(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
        return int(torch.ones(1, device=device).sum()) != 1
    except Exception:
        return True
