"""Time forward passes, detection features and training steps of several networks in one run."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mmvanilla.apis.timing import Timing, time_interleaved
from mmvanilla.models.archs import resolve_arch
from projects.benchmark.machine import (
    describe_machine,
    peak_gflops,
    peak_memory,
    saved_for_backward,
)
from projects.benchmark.networks import Contender, build_ours, build_peer, build_reference
from projects.benchmark.report import compare_with_onnxruntime, compare_with_reference
from projects.benchmark.runtimes import (
    DTYPES,
    RUNTIMES,
    Unmeasurable,
    count_macs,
    find_operators,
    prepare,
)
from projects.benchmark.training import loss_of, trained_forms, training_step

#: What to measure: classification, the backbone alone at a detector's size, a training step.
MODES = ("forward", "features", "train")

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """The settings of one benchmark.

    Attributes:
        modes: Modes to measure, from :data:`MODES`.
        archs: Names of the variants of VanillaNet to measure.
        peers: Names of the peers to measure, as in
            :func:`projects.benchmark.networks.build_peer`.
        reference: Whether to measure the plain reference of each VanillaNet, too.
        forms: Forms to measure, keys of :data:`projects.benchmark.runtimes.RUNTIMES`.
        dtypes: Data types to measure, keys of :data:`projects.benchmark.runtimes.DTYPES`.
        batches: Batch sizes of ``forward`` and ``train``; ``features`` uses one image.
        sizes: Heights and widths in pixels of ``forward`` and ``train``.
        feature_size: Height and width in pixels of ``features``.
        device: Name of the device to run on.
        threads: Number of threads on the CPU. 0: torch's default.
        rounds: Number of timed runs of each network and form.
        warmup: Number of untimed runs of each before these.
        profile: Whether to find the operators that take the time of each forward pass, too.
        channels_last: Whether to measure each training step in the memory format channels_last,
            too. (Of the forward passes it is one of the forms.)
    """

    modes: tuple[str, ...] = ("forward",)
    archs: tuple[str, ...] = ("5", "9", "13")
    peers: tuple[str, ...] = ()
    reference: bool = True
    forms: tuple[str, ...] = tuple(
        form for form, runtime in RUNTIMES.items() if not runtime.for_gpu
    )
    dtypes: tuple[str, ...] = ("fp32",)
    batches: tuple[int, ...] = (1,)
    sizes: tuple[tuple[int, int], ...] = ((224, 224),)
    feature_size: tuple[int, int] = (800, 1333)
    device: str = "cpu"
    threads: int = 0
    rounds: int = 15
    warmup: int = 2
    profile: bool = False
    channels_last: bool = False

    def check(self) -> None:
        """Refuse a plan that cannot be measured, before anything is built.

        Raises:
            ValueError: A mode, variant, form or dtype is unknown, or a number is out of range.
            RuntimeError: The device does not exist.
        """
        for name, known in (("modes", MODES), ("forms", RUNTIMES), ("dtypes", DTYPES)):
            unknown = set(getattr(self, name)) - set(known)
            if unknown:
                raise ValueError(
                    f"unknown {name} {', '.join(unknown)}; choose from {', '.join(known)}"
                )
        for arch in self.archs:
            resolve_arch(arch)  # fail now, not after minutes of building
        if self.rounds < 2 or self.warmup < 0:
            raise ValueError(
                f"there must be at least 2 rounds and no negative warm-up, found {self.rounds} "
                f"and {self.warmup}"
            )
        if min((*self.batches, *sum((*self.sizes, self.feature_size), ()))) < 1:
            raise ValueError("batches, sizes and feature_size must be at least 1")
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"no device {self.device}: torch sees no GPU; take --device cpu")


@dataclass(frozen=True)
class Setting:
    """The settings that all networks share which are timed in turns."""

    mode: str
    dtype: str
    batch: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.mode}, batch {self.batch}, {self.height}x{self.width}, {self.dtype}"


def run_benchmark(plan: Plan, step: Step = lambda what, done, total: None) -> dict[str, Any]:
    """Measure everything in a plan.

    Args:
        plan: Settings of the benchmark.
        step: Function that is called after each step with the name of the current work, the number
            of its finished steps, and their total number.

    Returns:
        A dict for JSON: ``machine``, ``plan``, ``results`` (a list with one entry for each network,
        form and setting, with times in ms and, for forward passes, GMACs per image) and
        ``speedups`` over the reference, and ``onnxruntime_ratios`` over ONNX Runtime in fp32.

    Raises:
        ValueError: An entry of the plan is out of range or unknown.
        RuntimeError: The device does not exist.
        ImportError: MMPretrain is not installed.
    """
    plan.check()
    if plan.threads:
        torch.set_num_threads(plan.threads)
    device = torch.device(plan.device)
    machine = describe_machine(device)
    machine["peak_gflops"] = {name: peak_gflops(device, DTYPES[name]) for name in plan.dtypes}
    results: list[dict[str, Any]] = []
    for setting in _settings(plan):
        runner = _run_training if setting.mode == "train" else _run_forward
        results += runner(plan, setting, device, step)
        gc.collect()
    return dict(
        machine=machine,
        plan=asdict(plan),
        results=results,
        speedups=compare_with_reference(results),
        onnxruntime_ratios=compare_with_onnxruntime(results),
    )


def _settings(plan: Plan) -> list[Setting]:
    settings = []
    for mode in plan.modes:
        if mode == "features":
            settings += [Setting(mode, dtype, 1, *plan.feature_size) for dtype in plan.dtypes]
            continue
        settings += [
            Setting(mode, dtype, batch, *size)
            for dtype in plan.dtypes
            for size in plan.sizes
            for batch in plan.batches
        ]
    return settings


def _contenders(plan: Plan, setting: Setting, step: Step) -> list[Contender]:
    names = [*plan.archs, *plan.peers]
    contenders = []
    for index, name in enumerate(names):
        step(f"building {name}", index, len(names))
        if name not in plan.archs:
            contenders.append(build_peer(name))
            continue
        ours = build_ours(name)
        contenders.append(ours)
        if plan.reference and ours.has_reference:
            contenders.append(build_reference(ours))
        if setting.mode == "train":
            contenders.append(build_ours(name, with_cp=True))
    return contenders


def _images(setting: Setting, device: torch.device) -> Tensor:
    shape = (setting.batch, 3, setting.height, setting.width)
    images = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return images.to(device, DTYPES[setting.dtype])


def _run_forward(
    plan: Plan, setting: Setting, device: torch.device, step: Step
) -> list[dict[str, Any]]:
    contenders = _contenders(plan, setting, step)
    images = _images(setting, device)
    entries: dict[str, dict[str, Any]] = {}
    runs: dict[str, Callable[[], object]] = {}
    measured: dict[str, tuple[Contender, str]] = {}
    pairs = [(contender, form) for contender in contenders for form in plan.forms]
    features, threads = setting.mode == "features", torch.get_num_threads()
    for index, (contender, form) in enumerate(pairs):
        if contender.kind == "reference" and form not in ("training", "fused"):
            continue  # only our networks are measured in the other forms
        key = f"{contender.name} {form}"
        step(f"preparing {key}", index, len(pairs))
        entries[key] = _entry(contender, form, setting)
        entries[key]["gmacs"] = count_macs(contender, form, images, features) / 1e9
        try:
            runs[key] = prepare(contender, form, images, features, threads)
            measured[key] = (contender, form)
        except Unmeasurable as error:
            entries[key]["not_measured"] = str(error)
    _time(plan, setting, runs, entries, step)
    if plan.profile:
        for index, (key, run) in enumerate(runs.items()):
            step(f"profiling {key}", index, len(runs))
            entries[key]["operators"] = find_operators(
                run, *measured[key], images, features, threads
            )
    return list(entries.values())


def _run_training(
    plan: Plan, setting: Setting, device: torch.device, step: Step
) -> list[dict[str, Any]]:
    images = _images(setting, device)
    labels = torch.randint(1000, (setting.batch,), device=device)
    entries: dict[str, dict[str, Any]] = {}
    runs: dict[str, Callable[[], object]] = {}
    for contender, form, model in trained_forms(
        _contenders(plan, setting, step), plan.channels_last
    ):
        key = f"{contender.name} {form}"
        entry = entries[key] = _entry(contender, form, setting)
        if setting.dtype == "fp16":
            entry["not_measured"] = "a plain fp16 step would overflow; use bf16"
            continue
        model.to(device, images.dtype).train()
        forward = loss_of(model, images, labels)
        runs[key] = training_step(model, forward)
        step(f"counting {key}", 0, 1)
        entry["saved_mb"] = saved_for_backward(forward, model.parameters()) / 1e6
        runs[key]()  # now the gradients exist, and do not count for the peak
        peak = peak_memory(runs[key], device)
        entry["peak_mb"] = None if peak is None else peak / 1e6
    _time(plan, setting, runs, entries, step)
    return list(entries.values())


def _entry(contender: Contender, form: str, setting: Setting) -> dict[str, Any]:
    return dict(
        asdict(setting),
        network=contender.name,
        kind=contender.kind,
        arch=contender.arch,
        form=form,
        published_top1=contender.published_top1,
    )


def _time(
    plan: Plan,
    setting: Setting,
    runs: dict[str, Callable[[], object]],
    entries: dict[str, dict[str, Any]],
    step: Step,
) -> None:
    total = len(runs) * (plan.warmup + plan.rounds)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        step(f"timing {setting}", done, total)

    timings: dict[str, Timing] = time_interleaved(runs, plan.rounds, plan.warmup, advance)
    for key, timing in timings.items():
        entries[key]["ms"] = asdict(timing)
