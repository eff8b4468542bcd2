"""Measure accuracy, latency and size of several forms of a classifier on its config's data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from mmvanilla.apis.timing import Timing, time_interleaved

_SCOPE = "mmpretrain"
# The names of the numbers of images of each split, as arguments and on the command line.
_NAMES = {"train": "calibration_images", "test": "test_images"}
_BATCH = 100


class Form(NamedTuple):
    """One form of a classifier.

    Attributes:
        run: Function from normalised images, (N, C, H, W) float32, to logits, (N, K).
        size_bytes: Size of the file, or of the weights, in bytes.
    """

    run: Callable[[np.ndarray], np.ndarray]
    size_bytes: int


class MeasuredForm(NamedTuple):
    """Accuracy, speed and size of one form of a model.

    Attributes:
        name: Name of the form.
        accuracy: Top-1 accuracy in %.
        agreement: Share of images in % whose predicted class is that of the first form.
        logit_error: Root mean square difference from the logits of the first form, in % of their
            root mean square.
        latency: Times for one image; None if they were not measured.
        size_bytes: Size of the file, or of the weights, in bytes.
    """

    name: str
    accuracy: float
    agreement: float
    logit_error: float
    latency: Timing | None
    size_bytes: int


class Samples:
    """Normalised images and labels of a config's data set, loaded with its test pipeline.

    Args:
        cfg: Config of a classifier.
        split: ``'train'`` or ``'test'``.
        count: Number of images, spread over the whole data set; None for all.

    Raises:
        ValueError: The config is not a classifier's, its images have several labels, or the number
            is below 1.
    """

    def __init__(self, cfg: Config, split: str, count: int | None) -> None:
        if count is not None and count < 1:
            raise ValueError(f"{_NAMES[split]} must be at least 1, found {count}")
        if cfg.get("default_scope") != _SCOPE:
            raise ValueError(
                "only classifiers can be quantised; default_scope of this config is "
                f"{cfg.get('default_scope')!r}, expected {_SCOPE!r}"
            )
        init_default_scope(_SCOPE)
        dataset = dict(cfg[f"{split}_dataloader"].dataset)
        dataset["pipeline"] = cfg.test_dataloader.dataset.pipeline
        self._dataset = DATASETS.build(dataset)
        preprocessor = {"type": "ClsDataPreprocessor", **cfg.get("data_preprocessor", {})}
        self._preprocessor = MODELS.build(preprocessor)
        total = len(self._dataset)
        # Data sets are often sorted by class, so choose images from all parts.
        chosen = total if count is None else min(count, total)
        self._indices = np.linspace(0, total - 1, chosen).round().astype(int)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        for index in self._indices:
            sample = self._dataset[int(index)]
            batch = dict(inputs=[sample["inputs"]], data_samples=[sample["data_samples"]])
            images = self._preprocessor(batch)["inputs"]
            labels = sample["data_samples"].get("gt_label", ())
            if len(labels) != 1:
                raise ValueError(
                    f"image {index} of {type(self._dataset).__name__} has {len(labels)} labels; "
                    "int8 is measured by top-1 accuracy, so only classifiers of one label an "
                    "image can be quantised here"
                )
            yield images.numpy(), int(labels[0])

    def images(self) -> Iterator[np.ndarray]:
        """Yield the images alone, each (1, C, H, W)."""
        return (image for image, _ in self)

    def batches(self) -> Iterator[tuple[np.ndarray, list[int]]]:
        """Yield images of equal size together, (N, C, H, W), with their labels, in order."""
        images: list[np.ndarray] = []
        labels: list[int] = []
        for image, label in self:
            if images and (len(images) == _BATCH or image.shape != images[0].shape):
                yield np.concatenate(images), labels
                images, labels = [], []
            images.append(image)
            labels.append(label)
        yield np.concatenate(images), labels


def measure_forms(
    forms: Mapping[str, Form], samples: Samples, rounds: int = 0
) -> list[MeasuredForm]:
    """Measure several forms on the same images.

    Args:
        forms: The forms by name; the others are compared with the first one.
        samples: Images and labels to measure on.
        rounds: Number of timed runs of each form on one image, in turns, at least 2. 0 (default):
            no latency.
    """
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
    classes = expected.argmax(axis=1)
    return [
        MeasuredForm(
            name,
            100 * float(np.mean(found.argmax(axis=1) == labels)),
            100 * float(np.mean(found.argmax(axis=1) == classes)),
            100 * float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))),
            timings.get(name),
            forms[name].size_bytes,
        )
        for name, found in logits.items()
    ]


def tabulate(forms: Sequence[MeasuredForm]) -> list[list[str]]:
    """Make the rows of a table of forms, the names of the columns first."""
    rows = [["form", "top-1 %", f"as {forms[0].name} %", "logit error %"]]
    rows[0] += ["median ms", "quartiles ms", "MB"]
    for form in forms:
        times = ["–", "–"]
        if form.latency is not None:
            low, median, high = form.latency.low, form.latency.median, form.latency.high
            times = [f"{median:.2f}", f"{low:.2f}-{high:.2f}"]
        shares = [f"{share:.2f}" for share in (form.accuracy, form.agreement, form.logit_error)]
        rows.append([form.name, *shares, *times, f"{form.size_bytes / 1e6:.2f}"])
    return rows


def to_markdown(forms: Sequence[MeasuredForm]) -> str:
    """Format :func:`tabulate` as Markdown."""
    columns, *rows = tabulate(forms)
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
