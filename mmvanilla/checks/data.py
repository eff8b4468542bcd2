"""Look at what a model is fed: run a config's own pipelines on samples of its own data sets."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from torch import Tensor

from mmvanilla.apis.config import leaves, toolbox_of
from mmvanilla.apis.visualize import DRAWERS
from mmvanilla.checkpoints.writing import write_whole
from mmvanilla.checks.data_sets import build, check_part, disagree, listed, spaced
from mmvanilla.checks.findings import FAULT, OK, WARNING, Finding, words

_SHOWN, _SIDE = 4, 320  # samples on a picture, and pixels of each, so that names can be read
_HEADS = ("bbox_head", "mask_head", "decode_head", "auxiliary_head", "head")


def check_data(
    cfg: Config, images: int = 50, show_dir: str | None = None, thorough: bool = True
) -> list[Finding]:
    """Build a config's data sets, and look at samples; :func:`check_config` tells the arguments."""
    findings: list[Finding] = []
    names: dict[str, tuple[str, ...]] = {}
    # Heads beside a language model have an output for each word of a text.
    heads = {} if "language_model" in cfg.model else dict(_heads(cfg.model))
    unused = _ignored(cfg)
    for split in ("train", "val", "test") if thorough else ("train", "val"):
        loader, subject = cfg.get(f"{split}_dataloader"), f"{split} data"
        if not loader or (split == "test" and loader == cfg.get("val_dataloader")):
            continue
        dataset, wrong = build(loader["dataset"])
        if wrong:
            findings.append(wrong._replace(subject=subject))
            continue
        parts = list(leaves(dataset))
        for index, part in enumerate(parts):
            classes, found = check_part(subject, part, None if thorough else images)
            findings += found
            if classes:
                names[f"{subject}, part {index}" if len(parts) > 1 else subject] = classes
        metainfo = dict(getattr(parts[0], "metainfo", None) or {})
        if "thing_classes" in metainfo:  # heads of boxes know these only
            heads = {}
        samples, found = _take(subject, dataset, images)
        findings += found
        if not found:
            findings += _describe(subject, dataset, samples, classes, heads, thorough, unused)
        if samples and split == "train" and show_dir is not None:
            out = Path(show_dir, "train.png")
            shown = [samples[index] for index in spaced(len(samples), _SHOWN)]
            _draw(cfg, metainfo, shown, out)
            findings.append(Finding(OK, subject, f"{out} shows {len(shown)} samples"))
    return [*findings, *_check_classes(heads, names)]


def _take(subject: str, dataset: Any, images: int) -> tuple[list[Any], list[Finding]]:
    """Take samples until one does not fit or raises an error."""
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
    known = [x for x in samples if isinstance(x.get("inputs"), Tensor) and "data_samples" in x]
    return known, []


def _count_labels(dataset: Any) -> Counter[int] | None:
    """Count the labels of a whole split; None if they are not known without images."""
    counts: Counter[int] = Counter()
    for index in range(len(dataset)):
        try:
            info = dataset.get_data_info(index)
            if "instances" not in info:
                counts.update(np.atleast_1d(info["gt_label"]).tolist())
            else:  # without crowds, from which no model learns
                objects = (item for item in info["instances"] if not item.get("ignore_flag"))
                counts.update(item["bbox_label"] for item in objects)
        except (AttributeError, KeyError, NotImplementedError):
            return None
    return counts


def _ignored(cfg: Config) -> set[int]:
    """List the labels of pixels from which the heads of a segmenter do not learn."""
    heads = cfg.model.get("decode_head") or {}
    heads = heads if isinstance(heads, list | tuple) else [heads]
    return {head.get("ignore_index", 255) for head in heads}


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
    samples: list[Any],
    classes: Sequence[str],
    heads: Mapping[str, int],
    thorough: bool,
    unused: set[int],
) -> Iterator[Finding]:
    """Say what the samples have; ``unused`` labels are those of ignored pixels."""
    kind, counts, sizes, ignored = "", Counter[int](), set(), 0.0
    for sample in samples:
        found = sample["data_samples"]
        if "labels" in found.get("gt_instances", ()):
            kind, labels = "objects", found.gt_instances.labels
        elif "gt_sem_seg" in found:
            kind, labels = "pixels", found.gt_sem_seg.data
        elif "gt_label" in found:
            kind, labels = "labels", found.gt_label
        elif subject.startswith("train") and heads:
            remedy = (
                "let the pipeline load them, and the annotations name them as the data set does"
            )
            yield Finding(FAULT, subject, "no labels arrive", remedy, certain=True)
            return
        else:
            return
        sizes.add(_by(sample["inputs"].shape[-2:]))
        values, numbers = labels.unique(return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    if not kind:
        return
    remedy = "correct the labels, the classes, or what the pipeline drops"
    text = f"{len(samples)} of {len(dataset)} images, {listed(sorted(sizes))}: "
    text += f"{(arrived := counts.total())} {kind} arrive"
    if kind == "pixels":
        ignored = sum(counts.pop(label, 0) for label in unused) / arrived
        text += f", {ignored:.0%} ignored"
        remedy += "; reduce_zero_label=False keeps label 0"
    is_whole = len(samples) == len(dataset)
    whole = None if is_whole or counts and not thorough else _count_labels(dataset)
    known = counts if whole is None else whole
    text += f"; {'whole split' if is_whole or whole is not None else 'samples'}: "
    names = dict(enumerate(classes))
    text += listed([f"{names.get(label, label)} {known[label]}" for label in sorted(known)], 20)
    yield Finding(OK, subject, text)
    limit = len(classes) or max(heads.values(), default=math.inf)
    missing = listed([name for label, name in names.items() if not known[label]])
    is_train, is_known = subject.startswith("train"), is_whole or whole is not None
    if wrong := sorted(label for label in {*counts, *known} if not 0 <= label < limit):
        text = f"labels {wrong[:5]} are outside of the {limit} classes"
        yield Finding(FAULT, subject, text, remedy, certain=True)
    elif not counts and not subject.startswith("test") and (not known or len(samples) > 1):
        text = f"no {kind} of any class arrive"
        yield Finding(FAULT, subject, text, remedy, certain=is_known and not known)
    # Rare classes are not in a few label maps: only if one is left beside ignored pixels.
    elif missing and (is_train and is_known or ignored and len(counts) == 1):
        place = "this split" if is_known else "the samples"
        yield Finding(FAULT, subject, f"never seen in {place}: {missing}", remedy)
    if ignored > 0.5:
        yield Finding(WARNING, subject, f"{ignored:.0%} of the pixels are ignored", remedy)


def _by(size: Any) -> str:
    return "x".join(map(str, size))


def _heads(node: Any, place: str = "model") -> Iterator[tuple[str, int]]:
    """List the entries that tell heads the number of classes, and their values."""
    name = place.rstrip(".0123456789").rpartition(".")[2]
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        if isinstance(value, Mapping | list | tuple):
            yield from _heads(value, f"{place}.{key}")
        # STDC's other head finds borders.
        elif key == "num_classes" and name in _HEADS and "boundary_threshold" not in node:
            yield f"{place}.{key}", value


def _check_classes(
    heads: Mapping[str, int], names: Mapping[str, tuple[str, ...]]
) -> Iterator[Finding]:
    """Compare the classes of all data sets, and those of the heads."""
    first, expected = next(iter(names.items()), ("", ()))
    for place, classes in names.items():
        if classes != expected:
            text = f"those of the {place} are {listed(classes)}, and of the {first} "
            remedy = "give all the same in one order: metainfo.classes, folders, or `categories`"
            is_certain = disagree(classes, expected)
            status = FAULT if is_certain else WARNING
            yield Finding(status, "classes", text + listed(expected), remedy, is_certain)
    count = len(expected)
    for entry, found in heads.items():
        if found != count > 0:
            text = f"{entry} is {found}, but the data have {count} classes"
            remedy = f"set {entry}={count}, or metainfo=dict(classes=...) of the data"
            is_detector = "bbox_head" in entry or "mask_head" in entry
            status = FAULT if is_detector or found < count else WARNING
            yield Finding(status, "classes", text, remedy, certain=found < count)


def _draw(cfg: Config, metainfo: dict[str, Any], samples: list[Any], out: Path) -> None:
    """Draw samples side by side with their toolbox's visualizer."""
    kind = DRAWERS.get(toolbox_of(cfg) or "", "Visualizer")
    visualizer: Any = VISUALIZERS.build(dict(type=kind, name="samples"))
    visualizer.dataset_meta = metainfo
    drawn = []
    for sample in samples:
        pixels = sample["inputs"].float().clip(0, 255).byte().permute(1, 2, 0).numpy()
        image = np.ascontiguousarray(pixels[..., [2, 1, 0] if pixels.shape[2] == 3 else [0] * 3])
        found = copy.deepcopy(sample["data_samples"])
        if kind.endswith("UniversalVisualizer"):
            visualizer.visualize_cls(image, found, metainfo.get("classes"), resize=_SIDE)
        else:
            if "gt_instances" in found:
                boxes = found.gt_instances.bboxes
                found.gt_instances.bboxes = getattr(boxes, "tensor", boxes)
            visualizer.add_datasample("sample", image, found, draw_pred=False)
        drawn.append(visualizer.get_image())
    height = max(image.shape[0] for image in drawn)
    padded = [np.pad(each, ((0, height - len(each)), (0, 8), (0, 0))) for each in drawn]
    _, encoded = cv2.imencode(".png", np.concatenate(padded, axis=1)[..., ::-1])
    write_whole(encoded.tobytes(), out, overwrite=True)
