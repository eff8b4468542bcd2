"""Plan the report on a GPU: which networks are timed in which forms and settings, in what order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

#: What the tables of the page answer, by the name of the question, in the order of the page.
QUESTIONS: dict[str, str] = {
    "published": "Is the published latency reached?",
    "one": "One 224×224 image",
    "many": "64 images of 224×224",
    "features": "Features for a detector, one 800×1333 image",
    "compiled": "What the compiler gains",
    "training": "A training step of 64 images of 224×224",
    "detector": "A whole detector, one 800×1333 image",
}

_FORMS = ("fused", "channels_last", "cuda_graph_nchw", "cuda_graph")
_COMPILED = ("fused", "cuda_graph_nchw", "cuda_graph", "compiled", "max_autotune")
# Forms that are not measured for the references: nobody ran the authors' network in them.
_NOT_THEIRS = ("compiled", "max_autotune", "onnxruntime")
_TRAINING = ("NCHW", "channels_last")
_ARCHS = ("5", "9", "13")
_PEERS = ("resnet18", "resnet50", "resnet101", "swin-t", "convnext-t")
_REFERENCES = ("reference-5", "reference-9", "reference-13")
#: Precisions of inference and of training; ``amp-…`` is autocast with weights in fp32.
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "amp-fp16", "amp-bf16")


@dataclass(frozen=True)
class Group:
    """Cells that share a setting and are timed in turns.

    Attributes:
        question: Key of :data:`QUESTIONS`.
        precision: Entry of :data:`PRECISIONS`.
        batch: Number of images.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        networks: Names of variants (``'13'``), plain references (``'reference-13'``), training with
            recomputed activations (``'13 with_cp'``), peers (``'resnet50'``) and detectors.
        forms: Forms of each network: those of :data:`projects.benchmark.runtimes.RUNTIMES`, or
            for training the memory format.
        seconds: Limit for the timing; there are at least 5 rounds.
    """

    question: str
    precision: str
    batch: int
    height: int
    width: int
    networks: tuple[str, ...]
    forms: tuple[str, ...]
    seconds: float = 20.0

    @property
    def name(self) -> str:
        """Name of the group, as in the results file."""
        return f"{self.question}/{self.precision}/{self.batch}x{self.height}x{self.width}"

    def cells(self) -> Iterator[tuple[str, str, str]]:
        """Give each cell's name, network and form."""
        for network in self.networks:
            for form in self.forms:
                if network.startswith("reference") and form in _NOT_THEIRS:
                    continue
                yield f"{self.name}/{network}/{form}", network, form


@dataclass(frozen=True)
class GpuPlan:
    """The whole plan, the most important groups first.

    Attributes:
        groups: Groups in the order in which they are measured.
        width_mult: Factor for every width of the VanillaNets.
        rounds: Largest number of timed rounds of a group.
    """

    groups: tuple[Group, ...]
    width_mult: float = 1.0
    rounds: int = 100

    def cells(self) -> Iterator[str]:
        """Give the names of all cells."""
        for group in self.groups:
            for name, _, _ in group.cells():
                yield name


def full_plan() -> GpuPlan:
    """Plan the report of docs/benchmarks_gpu.md."""
    everyone = (*_ARCHS, *_REFERENCES, *_PEERS)
    heavy = ("13", "reference-13", "resnet50", "swin-t", "convnext-t")
    trained = ("9", "13", "13 with_cp", "reference-9", "reference-13", *_PEERS[1:])
    few = ("9", "13", "resnet50", "convnext-t")

    def one(precision: str) -> Group:
        return Group("one", precision, 1, 224, 224, everyone, _FORMS)

    def many(precision: str) -> Group:
        return Group("many", precision, 64, 224, 224, everyone, _FORMS)

    def features(precision: str) -> Group:
        return Group("features", precision, 1, 800, 1333, heavy, _FORMS)

    def training(precision: str) -> Group:
        return Group("training", precision, 64, 224, 224, trained, _TRAINING, 30.0)

    published = ("5", "6", "7", "8", "9", "10", "11", "12", "13", "13-1.5x", "13-1.5x-ada")
    return GpuPlan(
        (
            # PyTorch computes convolutions in TF32 unless it is told otherwise.
            Group(
                "published",
                "tf32",
                1,
                224,
                224,
                (*published, "reference-9", "reference-13", "resnet50", "swin-t"),
                ("fused", "cuda_graph_nchw"),
            ),
            one("fp16"),
            training("amp-fp16"),
            many("fp16"),
            features("fp16"),
            Group("compiled", "fp16", 1, 224, 224, few, _COMPILED),
            Group("one", "tf32", 1, 224, 224, everyone, (*_FORMS, "onnxruntime")),
            one("fp32"),
            one("bf16"),
            training("tf32"),
            many("tf32"),
            features("tf32"),
            Group("detector", "fp32", 1, 800, 1333, ("mask-rcnn-13", "mask-rcnn-r50"), ("fused",)),
            Group("compiled", "fp16", 64, 224, 224, few, _COMPILED),
            training("amp-bf16"),
            training("fp32"),
            many("bf16"),
            many("fp32"),
            features("bf16"),
            features("fp32"),
        )
    )


def small_plan() -> GpuPlan:
    """Plan a trial of every question with narrow networks and small images, for any device."""
    networks = ("5", "reference-5", "resnet18")
    trained = ("5", "5 with_cp", "reference-5")
    return GpuPlan(
        (
            Group("published", "tf32", 1, 64, 64, networks, ("fused", "cuda_graph_nchw"), 1.0),
            Group("one", "bf16", 1, 64, 64, networks, _FORMS, 1.0),
            Group("one", "tf32", 1, 64, 64, ("5",), ("fused", "onnxruntime"), 1.0),
            Group("many", "fp32", 2, 64, 64, networks, ("fused", "cuda_graph"), 1.0),
            Group("features", "fp32", 1, 64, 96, networks, ("fused",), 1.0),
            Group("training", "amp-bf16", 2, 64, 64, trained, _TRAINING, 1.0),
            Group("detector", "fp32", 1, 96, 128, ("mask-rcnn-small",), ("fused",), 1.0),
        ),
        width_mult=1 / 16,
        rounds=3,
    )
