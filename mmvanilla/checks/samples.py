"""Count what is in samples after their pipeline: objects, pixels, labels, sizes and values."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mmvanilla.checks.findings import FAULT, OK, WARNING, Finding

_LISTED = 20


@dataclass
class Samples:
    """What a model is fed from one split: samples are added one by one, and then described.

    Attributes:
        subject: What the findings are about, such as ``'train data'``.
        classes: Names of the classes.
        num_classes: Number of classes of the heads.
        ignored_label: Label of pixels that are left out.
        samples: The samples, as their pipeline returns them.
        images: What tells their images apart: the path, or a digest of the pixels.
        misfits: Faults of single samples.
    """

    subject: str
    classes: tuple[str, ...]
    num_classes: int
    ignored_label: int = 255
    samples: list[Any] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    misfits: list[Finding] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    values: list[float] = field(default_factory=list)
    kind: str = ""  # of what is counted
    given: int = 0
    ignored: int = 0
    remedy: str = "correct the labels, or leave these classes out"

    def load(self, dataset: Any, info: dict[str, Any]) -> None:
        """Run a pipeline until image and label map are there, and compare their sizes."""
        results: Any = dict(info)
        size, given = None, (info.get("height"), info.get("width"))
        for transform in dataset.pipeline.transforms:
            results = transform(results)
            if not isinstance(results, dict):
                return
            if size is None and "img" in results:
                size = results["img"].shape[:2]
                if None not in given and given != size:
                    self._misfit(f"{info['img_path']} is", size, "its annotations are for", given)
            if size is not None and not info.get("seg_map_path"):
                return
            if "gt_seg_map" in results:
                shape = results["gt_seg_map"].shape
                if shape != size:
                    self._misfit(f"{info['seg_map_path']} is", shape, "its image is", size)
                return

    def add(self, info: dict[str, Any], sample: Any) -> None:
        """Count what is in a sample, made of the image that ``info`` tells of."""
        self.samples.append(sample)
        pixels: Any = info.get("img")
        digest = hashlib.sha1(pixels.tobytes()).hexdigest() if hasattr(pixels, "tobytes") else None
        self.images.add(digest or str(info.get("img_path")))
        if info.get("reduce_zero_label") and len(self.samples) == 1:
            self.remedy += "; set reduce_zero_label=False if label 0 is a class"
        inputs, found = sample.get("inputs"), sample.get("data_samples")
        if not isinstance(inputs, Tensor):
            return
        size = other = tuple(inputs.shape[-2:])
        self.sizes[_by(size)] += 1
        self.values += [float(inputs.min()), float(inputs.max())]
        if "gt_instances" in found:
            self.kind = "objects"
            self.given += len(info.get("instances", ()))
            self.counts.update(found.gt_instances.labels.tolist())
            masks = found.gt_instances.get("masks")
            other = (masks.height, masks.width) if hasattr(masks, "height") else size
        elif "gt_sem_seg" in found:
            self.kind = "pixels"
            labels = found.gt_sem_seg.data
            self.given += labels.numel()
            values, counts = labels.unique(return_counts=True)
            self.counts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            self.ignored += self.counts.pop(self.ignored_label, 0)
            other = tuple(labels.shape[-2:])
        elif "gt_label" in found:
            self.kind = "images"
            self.counts.update(found.gt_label.tolist())
        if other != size and "train" in self.subject:
            self._misfit("annotations are", other, "their image is", size)

    def describe(self, whole: Counter[int] | None, length: int) -> list[Finding]:
        """Say what the samples have, and what is wrong with it.

        Args:
            whole: Objects or images of each label in the whole split; None if unknown.
            length: Number of images in the split.
        """
        counts = self.counts if whole is None else whole
        text = f"{len(self.samples)} of {length} images, {', '.join([*self.sizes][:3])}"
        if self.values:
            text += f", values {min(self.values):g} to {max(self.values):g}"
        if self.kind == "objects":
            text += f"; of {self.given} objects {self.counts.total()} arrive"
        elif self.kind == "pixels":
            text += f"; {self.ignored / self.given:.0%} of the pixels are ignored"
        listed = [f"{self._name(label)} {counts[label]}" for label in sorted(counts)]
        if listed:
            text += f"; {self.kind} ({'samples' if whole is None else 'whole split'}): "
            text += ", ".join(listed[:_LISTED]) + ", …" * (len(listed) > _LISTED)
        findings = [Finding(OK, self.subject, text)]
        if self.values and max(self.values) == min(self.values):
            text = "all pixels of all images are equal"
            findings.append(Finding(WARNING, self.subject, text, "look at the files and pipeline"))
        if self.kind:
            is_whole = whole is not None or len(self.samples) == length
            findings += self._check_labels(counts, is_whole)
        return findings

    def _check_labels(self, counts: Counter[int], is_whole: bool) -> list[Finding]:
        wrong = [label for label in counts if not 0 <= label < self.num_classes]
        missing = [label for label in range(len(self.classes)) if not counts[label]]
        findings = []
        if wrong and self.num_classes:
            text = f"labels {sorted(wrong)[:5]} are outside of the {self.num_classes} classes"
            remedy = f"number them from 0 to {self.num_classes - 1}, or set num_classes"
            findings.append(Finding(FAULT, self.subject, text, remedy, certain=True))
        elif not counts.total():
            text = f"no {self.kind} of any class arrive"
            findings.append(Finding(FAULT, self.subject, text, self.remedy, certain=is_whole))
        elif missing and "train" in self.subject:
            names = ", ".join(self._name(label) for label in missing[:8])
            text = f"never seen in {'this split' if is_whole else 'the samples'}: {names}"
            is_one_label = self.kind == "pixels" and len(counts) == 1
            status = FAULT if is_whole or is_one_label else WARNING
            findings.append(Finding(status, self.subject, text, self.remedy))
        if self.ignored > self.given / 2:
            text = f"{self.ignored / self.given:.0%} of the {self.kind} are ignored"
            findings.append(Finding(WARNING, self.subject, text, self.remedy))
        return findings

    def _misfit(self, what: str, size: Any, other: str, expected: Any) -> None:
        text = f"{what} {_by(size)}, but {other} {_by(expected)}"
        remedy = "make the files and what the pipeline does with both fit together"
        self.misfits.append(Finding(FAULT, self.subject, text, remedy, certain=True))

    def _name(self, label: int) -> str:
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)


def _by(size: Any) -> str:
    return "x".join(map(str, size))
