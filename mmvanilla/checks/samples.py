"""Count what is in samples after their pipeline: objects, pixels, labels, sizes and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mmvanilla.checks.data_sets import count_labels, leaves, listed, spaced
from mmvanilla.checks.findings import FAULT, OK, WARNING, Finding, words


def take(
    subject: str, dataset: Any, images: int, classes: Sequence[str], thorough: bool
) -> tuple[list[Any], list[Finding]]:
    """Take samples until one does not fit or raises an error, and say what they have.

    If ``thorough``, the labels of a whole split are counted, if they are known without images.
    """
    samples: list[Any] = []
    is_known = hasattr(dataset, "get_data_info")  # not one of torch alone
    for index in spaced(len(dataset), images) if is_known else ():
        info: dict[str, Any] = {}
        try:
            info = dataset.get_data_info(index)
            misfit = _compare_sizes(subject, dataset, info)
            samples += [] if misfit else [dataset[index]]
        except Exception as error:  # whatever a transform of any origin raises
            misfit = words(error)
        if misfit:
            text = f"{info.get('img_path') or f'image {index}'}: {misfit}"
            remedy = "correct this file, its annotations, or the pipeline"
            return samples, [Finding(FAULT, subject, text, remedy, certain=True)]
    # Not several views or branches, nor what only its own model knows.
    samples = [each for each in samples if isinstance(each.get("inputs"), Tensor)]
    samples = [each for each in samples if "data_samples" in each]
    whole, names = count_labels(dataset) if thorough else None, dict(enumerate(classes))
    return samples, [*_describe(subject, dataset, samples, whole, names)]


def _compare_sizes(subject: str, dataset: Any, info: dict[str, Any]) -> str:
    """Load an image and its label map by the pipeline's own steps, and compare their sizes."""
    parts, results = list(leaves(dataset)), dict(info)
    wanted = "gt_seg_map" if info.get("seg_map_path") else "ori_shape"
    for transform in parts[0].pipeline.transforms if len(parts) == 1 else ():
        results = results if wanted in results else transform(results)
    if wanted not in results:
        return ""
    size = tuple(results["ori_shape"])
    given = info.get("height", size[0]), info.get("width", size[1])
    if size != given:
        return f"it is {_by(size)}, but its annotations are for {_by(given)}"
    # In a test, the label map stays as it is.
    size = results["img"].shape[:2] if subject.startswith("train") else size
    labels = results["gt_seg_map"].shape if "gt_seg_map" in results else size
    return "" if labels == size else f"its label map is {_by(labels)}, but its image is {_by(size)}"


def _describe(
    subject: str,
    dataset: Any,
    samples: Sequence[Any],
    whole: Counter[int] | None,
    names: dict[int, str],
) -> Iterator[Finding]:
    kind, counts, sizes, ignored = "", Counter[int](), set(), 0.0
    for sample in samples:
        kind, labels = _labels(sample["data_samples"])
        sizes.add(_by(sample["inputs"].shape[-2:]))
        values, numbers = labels.unique(return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    if not kind:
        return
    arrived, length = counts.total(), len(dataset)
    remedy = "correct the labels or the classes"
    if kind == "pixels":
        label = getattr(next(leaves(dataset)), "ignore_index", 255)
        ignored = counts.pop(label, 0) / arrived
        remedy += "; reduce_zero_label=False keeps label 0"
    is_whole = whole is not None or len(samples) == length
    text = f"{len(samples)} of {length} images, {listed(sorted(sizes))}: {arrived} {kind} arrive"
    text += f", {ignored:.0%} ignored" * (kind == "pixels")
    text += f"; {'samples' if whole is None else 'whole split'}: "
    counts = counts if whole is None else whole
    text += listed([f"{names.get(label, label)} {counts[label]}" for label in sorted(counts)], 20)
    yield Finding(OK, subject, text)
    missing = listed([name for label, name in names.items() if not counts[label]])
    place = "this split" if is_whole else "the samples"
    if names and (wrong := sorted(set(counts) - set(names))):
        text = f"labels {wrong[:5]} are outside of the {len(names)} classes"
        yield Finding(FAULT, subject, text, remedy, certain=True)
    elif not counts and not subject.startswith("test"):
        text = f"no {kind} of any class arrive"
        yield Finding(FAULT, subject, text, remedy, certain=is_whole)
    # Rare classes are not in a few label maps: only if one is left beside ignored pixels.
    elif missing and subject.startswith("train") and (is_whole or ignored and len(counts) == 1):
        yield Finding(FAULT, subject, f"never seen in {place}: {missing}", remedy)
    if ignored > 0.5:
        yield Finding(WARNING, subject, f"{ignored:.0%} of the pixels are ignored", remedy)


def _labels(found: Any) -> tuple[str, Tensor]:
    if "gt_instances" in found:
        return "objects", found.gt_instances.labels
    if "gt_sem_seg" in found:
        return "pixels", found.gt_sem_seg.data
    return ("images", found.gt_label) if "gt_label" in found else ("", torch.empty(0))


def _by(size: Any) -> str:
    return "x".join(map(str, size))
