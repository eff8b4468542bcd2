"""Measure accuracy, latency and size of several forms of a classifier on its config's data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader, Subset

from mmvanilla.apis.config import leaves, tested_dataset, toolbox_of
from mmvanilla.apis.model import build_model
from mmvanilla.apis.timing import Timing, time_interleaved

_SCOPE = "mmpretrain"


class Form(NamedTuple):
    """A classifier as a function of images, (N, C, H, W), to logits, (N, K), and its size."""

    run: Callable[[np.ndarray], np.ndarray]
    size_bytes: int


class MeasuredForm(NamedTuple):
    """Accuracy, speed and size of one form of a model.

    In %: top-1 ``accuracy``; ``agreement`` with the first form in the predicted class, and the
    root mean square of the difference from its logits. ``latency`` is for one image, if measured.
    """

    name: str
    accuracy: float
    agreement: float
    logit_error: float
    latency: Timing | None
    size_bytes: int


class Samples:
    """Normalised images and labels of a classifier's data set, loaded with its test pipeline.

    ``split`` is ``'train'`` or ``'test'``; ``count`` images, spread over all of it (None: all).

    Raises:
        ValueError: The config is not a classifier's, its images have several labels, or the number
            is below 1.
    """

    def __init__(self, cfg: Config, split: str, count: int | None) -> None:
        if count is not None and count < 1:
            raise ValueError(f"take at least one image of the {split} split, found {count}")
        if toolbox_of(cfg) != _SCOPE:
            raise ValueError(
                f"only classifiers can be quantised, this config is of {toolbox_of(cfg)}"
            )
        self._preprocessor: Any = build_model(cfg).data_preprocessor
        dataset = copy.deepcopy(cfg[f"{split}_dataloader"].dataset)
        for part in leaves(dataset):
            part["pipeline"] = tested_dataset(cfg)["pipeline"]
        built = DATASETS.build(dataset)
        total = len(built)
        # Data sets are often sorted by class, so choose images from all parts.
        chosen = np.linspace(0, total - 1, min(count or total, total)).round().astype(int)
        self._dataset = Subset(built, chosen.tolist())

    def batches(self, size: int = 100) -> Iterator[tuple[np.ndarray, list[int]]]:
        """Yield images, (N, C, H, W), with their labels, in order; smaller ones are padded."""
        for batch in DataLoader(self._dataset, size, collate_fn=pseudo_collate):
            labels = [sample.get("gt_label", ()) for sample in batch["data_samples"]]
            if any(len(each) != 1 for each in labels):
                raise ValueError(
                    f"an image has {max(map(len, labels))} labels; int8 is measured by top-1 "
                    "accuracy, so only classifiers of one label an image can be quantised here"
                )
            yield self._preprocessor(batch)["inputs"].numpy(), [int(each) for each in labels]

    def images(self) -> Iterator[np.ndarray]:
        """Yield the images alone, each (1, C, H, W)."""
        return (image for image, _ in self.batches(1))


def measure_forms(
    forms: Mapping[str, Form], samples: Samples, rounds: int = 0
) -> list[MeasuredForm]:
    """Measure forms on the same images, each ``rounds`` (0, or at least 2) times on one of them."""
    labels: list[int] = []
    collected: dict[str, list[np.ndarray]] = {name: [] for name in forms}
    images = np.empty(0, np.float32)
    for images, some in samples.batches():
        labels += some
        for name, form in forms.items():
            collected[name].append(np.asarray(form.run(images), dtype=np.float32))
    runs = {name: partial(form.run, images[:1]) for name, form in forms.items()}
    timings = time_interleaved(runs, rounds) if rounds else {}
    logits = {name: np.concatenate(parts) for name, parts in collected.items()}
    expected = logits[next(iter(forms))]
    return [
        MeasuredForm(
            name,
            100 * float(np.mean(found.argmax(axis=1) == labels)),
            100 * float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1))),
            100 * float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))),
            timings.get(name),
            forms[name].size_bytes,
        )
        for name, found in logits.items()
    ]


def to_markdown(forms: Sequence[MeasuredForm]) -> str:
    """Make a table of forms in Markdown."""
    columns = f"top-1 % | as {forms[0].name} % | logit error % | median ms | quartiles ms | MB"
    lines = [f"| form | {columns} |", "|---|---:|---:|---:|---:|---:|---:|"]
    for form in forms:
        times = "– | –"
        if form.latency is not None:
            low, median, high = form.latency.low, form.latency.median, form.latency.high
            times = f"{median:.2f} | {low:.2f}-{high:.2f}"
        shares = f"{form.accuracy:.2f} | {form.agreement:.2f} | {form.logit_error:.2f}"
        lines.append(f"| {form.name} | {shares} | {times} | {form.size_bytes / 1e6:.2f} |")
    return "\n".join(lines)
