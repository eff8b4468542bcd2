"""Look at what a model is fed: run a config's own pipelines on samples of its own data sets."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, MODELS, VISUALIZERS

from mmvanilla.checks.data_sets import build, check_part, disagree, leaves, listed
from mmvanilla.checks.findings import FAULT, OK, WARNING, Finding, words
from mmvanilla.checks.samples import take

_SHOWN, _SIDE = 4, 320  # samples on a picture, and pixels of each, so that names can be read
_VISUALIZERS = dict(
    mmdet="DetLocalVisualizer", mmseg="SegLocalVisualizer", mmpretrain="UniversalVisualizer"
)
_HEADS = ("bbox_head", "mask_head", "decode_head", "auxiliary_head", "head")


def check_data(
    cfg: Config, images: int = 50, show_dir: str | None = None, thorough: bool = True
) -> list[Finding]:
    """Build the data sets of a config, and look at evenly spaced samples as they enter the model.

    If ``thorough``, whole annotation files and the test split are looked at, too. Four training
    samples are drawn into ``show_dir``, if it is given.
    """
    findings: list[Finding] = []
    names: dict[str, tuple[str, ...]] = {}
    heads = dict(_heads(cfg.model))
    for split in ("train", "val", "test") if thorough else ("train", "val"):
        loader, subject = cfg.get(f"{split}_dataloader"), f"{split} data"
        if not loader or (split == "test" and loader == cfg.get("val_dataloader")):
            continue
        dataset, wrong = build(loader["dataset"])
        if wrong:
            remedy = "put the data there, or correct data_root, ann_file and data_prefix"
            findings.append(Finding(FAULT, subject, wrong, remedy, certain=True))
        if dataset is None:
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
        samples, found = take(subject, dataset, images, classes, thorough)
        findings += [item for item in found if thorough or item.certain]
        if samples and split == "train":
            findings.append(_batch(cfg, loader, samples[:_SHOWN]))
            if show_dir is not None:
                out = Path(show_dir, "train.png")
                _draw(cfg, metainfo, samples[:_SHOWN], out)
                findings.append(Finding(OK, subject, f"{out} shows the first samples"))
    return [*findings, *_check_classes(heads, names), *_check_topk(cfg, heads)]


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


def _check_topk(cfg: Config, heads: Mapping[str, int]) -> Iterator[Finding]:
    """Find accuracies of more classes than there are: they fail in the first validation."""
    nodes = cfg.get("val_evaluator") or []
    for node in [nodes] if isinstance(nodes, Mapping) else nodes:
        if np.max(node.get("topk") or 1) > (count := heads.get("model.head.num_classes", np.inf)):
            text = f"topk={node['topk']} asks for more than the {count} classes"
            yield Finding(FAULT, "val_evaluator", text, "set topk=(1,)", certain=True)


def _batch(cfg: Config, loader: Any, samples: list[Any]) -> Finding:
    """Join training samples as the loader does, and prepare them as the model does."""
    kind = "ClsDataPreprocessor" if cfg.get("default_scope") == "mmpretrain" else None
    node = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}
    collate = (loader.get("collate_fn") or {}).get("type", "pseudo_collate")
    try:
        batch = FUNCTIONS.get(collate)(copy.deepcopy(samples))
        node = {"type": kind or "BaseDataPreprocessor", **copy.deepcopy(node)}
        inputs = MODELS.build(node)(batch, True)["inputs"]
        low, high = inputs.aminmax()
    except Exception as error:
        remedy = "make the images equally large in the pipeline, or pad them in data_preprocessor"
        return Finding(FAULT, "train data", f"no batch: {words(error)}", remedy, certain=True)
    text = f"a batch is {tuple(inputs.shape)}, with values {low:.3g} to {high:.3g}"
    return Finding(OK, "train data", text)


def _draw(cfg: Config, metainfo: dict[str, Any], samples: list[Any], out: Path) -> None:
    """Draw samples side by side with their toolbox's visualizer."""
    kind = _VISUALIZERS.get(cfg.get("default_scope") or "", "Visualizer")
    visualizer: Any = VISUALIZERS.build(dict(type=kind, name="samples"))
    visualizer.dataset_meta = metainfo
    drawn = []
    for sample in samples:
        pixels = sample["inputs"].float().clip(0, 255).byte().permute(1, 2, 0).numpy()
        image = np.ascontiguousarray(pixels[..., [2, 1, 0] if pixels.shape[2] == 3 else [0] * 3])
        found = copy.deepcopy(sample["data_samples"])
        if kind == "UniversalVisualizer":
            visualizer.visualize_cls(image, found, metainfo.get("classes"), resize=_SIDE)
        else:
            if "gt_instances" in found:
                boxes = found.gt_instances.bboxes
                found.gt_instances.bboxes = getattr(boxes, "tensor", boxes)
            visualizer.add_datasample("sample", image, found, draw_pred=False)
        drawn.append(visualizer.get_image())
    height = max(image.shape[0] for image in drawn)
    padded = [np.pad(each, ((0, height - len(each)), (0, 8), (0, 0))) for each in drawn]
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), np.concatenate(padded, axis=1)[..., ::-1])
