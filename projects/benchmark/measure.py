"""Time forward passes, detection features and training steps of several networks in turns."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.apis.complexity import count_macs
from mmvanilla.apis.timing import time_interleaved
from mmvanilla.models.archs import ARCHS, resolve_arch
from mmvanilla.models.merging import merge_pairs
from projects.benchmark.machine import describe_machine, saved_for_backward
from projects.benchmark.networks import PEERS, Network, Part, build
from projects.benchmark.runtimes import DTYPES, Run, prepare

#: What to measure: classification, the backbone alone at a detector's size, a training step.
MODES = ("forward", "features", "train")
TRAINING_STEP = "training step"


@dataclass(frozen=True)
class Plan:
    """The settings of one benchmark.

    Attributes:
        modes: Modes to measure, from :data:`MODES`.
        archs: Names of the variants of VanillaNet to measure.
        peers: Names of the peers to measure, keys of :data:`projects.benchmark.networks.PEERS`.
        reference: Whether to measure the plain reference of each VanillaNet, too.
        forms: Forms to measure, keys of :data:`projects.benchmark.runtimes.FORMS`.
        dtypes: Data types to measure, keys of :data:`projects.benchmark.runtimes.DTYPES`; a
            training step in half precision is one under autocast.
        batches: Batch sizes of ``forward`` and ``train``; ``features`` uses one image.
        size: Height and width in pixels of ``forward`` and ``train``.
        feature_size: Height and width in pixels of ``features``.
        device: Name of the device to run on.
        rounds: Number of timed runs of each network and form, at least 2.
        warmup: Number of untimed runs of each before these.
        width_mult: Factor for every width of the VanillaNets, to try the benchmark.
    """

    modes: tuple[str, ...] = ("forward",)
    archs: tuple[str, ...] = ("5", "9", "13")
    peers: tuple[str, ...] = ()
    reference: bool = True
    forms: tuple[str, ...] = ("fused",)
    dtypes: tuple[str, ...] = ("fp32",)
    batches: tuple[int, ...] = (1,)
    size: tuple[int, int] = (224, 224)
    feature_size: tuple[int, int] = (800, 1333)
    device: str = "cpu"
    rounds: int = 15
    warmup: int = 2
    width_mult: float = 1.0


def run_benchmark(plan: Plan) -> dict[str, Any]:
    """Measure everything in a plan.

    Args:
        plan: Settings of the benchmark.

    Returns:
        A dict for JSON: ``machine``, ``plan``, and ``results``, a list with one entry for each
        network, form and setting, with times in ms, or with ``not_measured``, the reason.

    Raises:
        ValueError: A network is unknown, or there are fewer than two rounds.
        RuntimeError: The device does not exist.
    """
    for arch in plan.archs:
        resolve_arch(arch, plan.width_mult)  # fail now, not after minutes of building
    unknown = sorted(set(plan.peers) - set(PEERS))
    if unknown or plan.rounds < 2:
        raise ValueError(
            f"there must be at least 2 rounds and known peers, found {plan.rounds} and "
            f"{unknown}; choose from {', '.join(PEERS)}"
        )
    device = torch.device(plan.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"no device {device}: torch sees no GPU; take --device cpu")
    machine = describe_machine(device)  # with the load before it has ours
    results: list[dict[str, Any]] = []
    for mode in plan.modes:
        for dtype in plan.dtypes:
            torch.backends.cudnn.allow_tf32 = dtype == "tf32"
            torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
            for batch in (1,) if mode == "features" else plan.batches:
                size = plan.feature_size if mode == "features" else plan.size
                setting = dict(mode=mode, dtype=dtype, batch=batch, height=size[0], width=size[1])
                results += _measure(plan, setting, device)
                gc.collect()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
    return dict(machine=machine, plan=asdict(plan), results=results)


def _networks(plan: Plan, training: bool) -> Iterator[Network]:
    for arch in plan.archs:
        yield build(arch, width_mult=plan.width_mult)
        if plan.reference and not ARCHS[arch].is_adaptive:
            yield build(f"reference-{arch}", width_mult=plan.width_mult)
        if training:
            yield build(arch, with_cp=True, width_mult=plan.width_mult)
    for peer in plan.peers:
        yield build(peer)


def _measure(plan: Plan, setting: dict[str, Any], device: torch.device) -> list[dict[str, Any]]:
    training = setting["mode"] == "train"
    shape = (setting["batch"], 3, setting["height"], setting["width"])
    images = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device)
    entries: dict[str, dict[str, Any]] = {}
    runs: dict[str, Run] = {}
    for network in _networks(plan, training):
        for form, start in _forms(plan, setting, network, images):
            key = f"{network.name} {form}"
            print(f"preparing {key}, {setting['dtype']}", flush=True)
            about = dict(network=network.name, kind=network.kind, arch=network.arch, form=form)
            entries[key] = {**setting, **about, "published_top1": network.top1}
            try:
                entries[key], runs[key] = entries[key] | start[0](), start[1]()
                runs[key]()
            except Exception as error:  # a compiler, an exporter or a runtime raises anything
                runs.pop(key, None)
                reason = (str(error).strip().splitlines() or ["no message"])[0]
                entries[key]["not_measured"] = f"{type(error).__name__}: {reason[:150]}"
    for key, timing in time_interleaved(runs, plan.rounds, plan.warmup).items():
        entries[key]["ms"] = asdict(timing)
    return list(entries.values())


#: What is known of a form before it runs, and the run itself.
Start = tuple[Callable[[], dict[str, Any]], Callable[[], Run]]


def _forms(
    plan: Plan, setting: dict[str, Any], network: Network, images: Tensor
) -> Iterator[tuple[str, Start]]:
    dtype = DTYPES[setting["dtype"]]
    if setting["mode"] == "train":
        models = {TRAINING_STEP: network.model}
        if network.kind == "ours" and not network.name.endswith("with_cp"):
            models[f"{TRAINING_STEP}, fused"] = network.fused  # as in fine-tuning a fused network
            models[f"{TRAINING_STEP}, merged"] = copy.deepcopy(network.model)
            merge_pairs(models[f"{TRAINING_STEP}, merged"])  # as DeepTrainingHook(merge=True) does
        for form, model in models.items():
            step = TrainingStep(model, images, dtype)
            yield form, (step.memory, lambda step=step: step)
        return
    features = setting["mode"] == "features"
    for form in plan.forms:
        if network.kind == "reference" and form not in ("training", "fused"):
            continue  # only our networks are measured in the other forms

        def macs(form: str = form) -> dict[str, Any]:
            model = network.model if form == "training" else network.fused
            net = Part(copy.deepcopy(model), features).to("meta")
            image = torch.empty(1, *images.shape[1:], device="meta")
            return {"gmacs": count_macs(net, image) / 1e9}

        yield (
            form,
            (
                macs,
                lambda form=form: prepare(network, form, images.to(dtype), features),
            ),
        )


class TrainingStep:
    """The loss of a classifier on random labels, and its gradients.

    Args:
        model: The classifier; a copy is trained.
        images: Images, (N, 3, H, W), on the device to train on.
        dtype: Half precision for autocast, or float32.
    """

    def __init__(self, model: nn.Module, images: Tensor, dtype: torch.dtype) -> None:
        self._model = copy.deepcopy(model).to(images.device).train()
        self._images, self._dtype = images, dtype
        generator = torch.Generator().manual_seed(0)
        self._labels = torch.randint(1000, (len(images),), generator=generator).to(images.device)

    def _loss(self) -> Tensor:
        half = self._dtype != torch.float32
        with torch.autocast(self._images.device.type, self._dtype, enabled=half):
            logits = self._model(self._images)
        return nn.functional.cross_entropy(logits.float(), self._labels)

    def memory(self) -> dict[str, Any]:
        """Count what a step keeps for backward and, on a GPU, the most that it takes, in MB."""
        found: dict[str, Any] = {
            "saved_mb": saved_for_backward(self._loss, self._model.parameters()) / 1e6
        }
        if self._images.is_cuda:
            self()  # now the gradients exist, and do not count for the peak
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self()
            found["peak_mb"] = (torch.cuda.max_memory_allocated() - before) / 1e6
        return found

    def __call__(self) -> None:
        """Run one step, without an optimiser."""
        # Zeroed in place, so that the step is measured and not the allocator.
        self._model.zero_grad(set_to_none=False)
        self._loss().backward()
