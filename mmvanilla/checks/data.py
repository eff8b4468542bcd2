"""Look at what a model is fed: run a config's own pipelines on samples of its own data sets."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, METRICS, MODELS, VISUALIZERS
from torch import nn

from mmvanilla.checkpoints.writing import write_whole
from mmvanilla.checks.classes import check_classes, count_of_heads
from mmvanilla.checks.data_sets import (
    build,
    class_names,
    coco_file,
    compare_with_file,
    leaves,
    whole_counts,
)
from mmvanilla.checks.findings import Finding, fault, ok, warning, words
from mmvanilla.checks.samples import Samples

_MISSING = "put the data there, or correct data_root, ann_file and data_prefix"
_SHOWN, _SIDE = 4, 320  # samples on a picture, and pixels of each, so that names can be read
_VISUALIZERS = dict(
    mmdet="DetLocalVisualizer", mmseg="SegLocalVisualizer", mmpretrain="UniversalVisualizer"
)


def check_data(
    cfg: Config,
    model: nn.Module | None = None,
    images: int = 50,
    show_dir: str | None = None,
    thorough: bool = True,
) -> list[Finding]:
    """Build the data sets of a config, and look at samples as they enter the model.

    Args:
        cfg: The config.
        model: Its model, also on the meta device, whose heads are compared with the classes. None:
            they are not compared.
        images: Number of images of each split, evenly spaced. Default: 50.
        show_dir: Folder for a picture of four training samples. None: none is drawn.
        thorough: Whether to look at whole splits, at the test split and the metrics, too.
            Default: True.
    """
    findings: list[Finding] = []
    names: dict[str, tuple[str, ...]] = {}
    seen: dict[str, set[str]] = {}
    for split in ("train", "val", "test") if thorough else ("train", "val"):
        loader = cfg.get(f"{split}_dataloader")
        if not isinstance(loader, Mapping) or (split == "test" and loader == cfg.val_dataloader):
            continue
        subject = f"{split} data"
        dataset, wrong = build(loader["dataset"])
        if wrong:
            findings.append(fault(subject, wrong, _MISSING, certain=True))
        if dataset is None:
            continue
        parts = list(leaves(dataset))
        for index, part in enumerate(parts):
            file = coco_file(part)
            given, classes = class_names(part), class_names(part, file)
            names[f"{subject}, part {index}" if len(parts) > 1 else subject] = classes
            if given != classes:
                text = f"the classes are {_listed(given)}, but {part.ann_file} has the categories "
                remedy = "name classes that it has, and sort its `categories` as they are"
                findings.append(fault(subject, text + _listed(classes), remedy, certain=True))
            if file is not None and len(part):
                some = part if thorough else part.get_subset(_spaced(len(part), images))
                findings += compare_with_file(subject, some, file, split != "train")
        head = cfg.model.get("decode_head")
        ignored = head.get("ignore_index", 255) if isinstance(head, Mapping) else 255
        fed = Samples(subject, given, count_of_heads(model) or len(given), ignored)
        findings += check_classes(model, subject, parts[0]) if model is not None else []
        findings += _take(fed, dataset, parts, images)
        if fed.samples:
            whole = whole_counts(dataset) if thorough else None
            found = fed.describe(whole, len(dataset))
            findings += found if thorough else [item for item in found if item.certain]
            findings += _batch(cfg, loader, subject, fed.samples[:_SHOWN])
            if show_dir is not None and split == "train":
                out = Path(show_dir, f"{split}.png")
                _draw(cfg, dict(parts[0].metainfo), fed.samples[:_SHOWN], out)
                findings.append(ok(subject, f"{out} shows four samples"))
        seen[split] = fed.images
    if seen.get("train") and seen["train"] == seen.get("val"):
        text = "it reads the images of the training"
        findings.append(warning("val data", text, "name other images, or set test_mode=True"))
    findings += _same_classes(names)
    for name in ("val_evaluator", "test_evaluator") if thorough else ():
        nodes = cfg.get(name) or []
        for node in [nodes] if isinstance(nodes, Mapping) else nodes:
            try:
                METRICS.build(copy.deepcopy(node))
            except Exception as error:  # whatever a metric of any origin raises
                findings.append(fault(name, words(error), "correct it"))
    return list(dict.fromkeys(findings))


def _take(fed: Samples, dataset: Any, parts: Sequence[Any], images: int) -> list[Finding]:
    """Take samples from a data set; the first one that raises is a fault, with its file."""
    for index in _spaced(len(dataset), images):
        info: Any = {}
        try:
            info = dataset.get_data_info(index)
            if len(parts) == 1 and hasattr(parts[0], "pipeline"):
                fed.load(parts[0], info)
            if not fed.findings:
                fed.add(info, dataset[index])
        except Exception as error:  # whatever a transform of any origin raises
            text = f"{info.get('img_path') or f'image {index}'}: {words(error)}"
            remedy = "correct this file, its annotations, or the pipeline"
            return [fault(fed.subject, text, remedy, certain=True)]
        if fed.findings:
            return fed.findings[:1]
    return []


def _same_classes(names: Mapping[str, tuple[str, ...]]) -> list[Finding]:
    """Compare the classes of all splits, and of all parts of joined data sets."""
    found = [(place, classes) for place, classes in names.items() if classes]
    remedy = "give all the same in the same order: metainfo.classes, folders, or `categories`"
    return [
        fault(
            "classes",
            f"those of the {place} are {_listed(classes)}, and of the {found[0][0]} "
            f"{_listed(found[0][1])}",
            remedy,
            certain=True,
        )
        for place, classes in found[1:]
        if classes != found[0][1]
    ]


def _batch(cfg: Config, loader: Any, subject: str, samples: Sequence[Any]) -> list[Finding]:
    """Join samples as the loader does, and prepare them as the model does."""
    node = copy.deepcopy(cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor"))
    if not node:
        return []
    if cfg.get("default_scope") == "mmpretrain":
        node.setdefault("type", "ClsDataPreprocessor")
    training = subject.startswith("train")
    samples = copy.deepcopy(list(samples[: None if training else 1]))
    collate = loader.get("collate_fn") or dict(type="pseudo_collate")
    try:
        batch = FUNCTIONS.get(collate["type"])(samples)
        inputs = MODELS.build(node)(batch, training)["inputs"]
        low, high = inputs.aminmax()
    except Exception as error:
        remedy = "make the images equally large in the pipeline, or pad them in data_preprocessor"
        return [fault(subject, f"no batch: {words(error)}", remedy, certain=True)]
    text = f"a batch is {tuple(inputs.shape)}, with values {low:.3g} to {high:.3g}"
    return [ok(subject, text)]


def _draw(cfg: Config, metainfo: dict[str, Any], samples: Sequence[Any], out: Path) -> None:
    """Draw samples side by side with their toolbox's visualizer."""
    kind = _VISUALIZERS.get(cfg.get("default_scope") or "")
    visualizer: Any = VISUALIZERS.build(dict(type=kind, name="samples")) if kind else None
    drawn = []
    for sample in samples:
        pixels = sample["inputs"].float().clip(0, 255).numpy().astype(np.uint8)
        image = np.ascontiguousarray(pixels.transpose(1, 2, 0)[..., ::-1])
        image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
        found = copy.deepcopy(sample["data_samples"])
        if hasattr(visualizer, "visualize_cls"):
            scale = _SIDE / min(image.shape[:2])
            classes = metainfo.get("classes")
            image = visualizer.visualize_cls(image, found, classes, rescale_factor=scale)
        elif visualizer is not None:
            visualizer.dataset_meta = metainfo
            if "gt_instances" in found:
                boxes = found.gt_instances.bboxes
                found.gt_instances.bboxes = getattr(boxes, "tensor", boxes)
            visualizer.add_datasample("sample", image, found, draw_pred=False)
            image = visualizer.get_image()
        drawn.append(image)
    height = max(image.shape[0] for image in drawn)
    padded = [np.pad(each, ((0, height - len(each)), (0, 8), (0, 0))) for each in drawn]
    _, encoded = cv2.imencode(".png", np.concatenate(padded, axis=1)[..., ::-1])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(lambda file: file.write(encoded.tobytes()), out, overwrite=True)


def _spaced(length: int, count: int) -> list[int]:
    """Choose indices from the whole of a data set, since many are sorted by their classes."""
    count = min(length, count)
    return [index * (length - 1) // max(count - 1, 1) for index in range(count)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + ", …" * (len(names) > 8)
