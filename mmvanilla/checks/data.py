"""Look at what a model is fed: run a config's own pipelines on samples of its own data sets."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, METRICS, MODELS, VISUALIZERS
from torch import nn

from mmvanilla.checkpoints.writing import write_whole
from mmvanilla.checks import data_sets
from mmvanilla.checks.data_sets import class_names, leaves
from mmvanilla.checks.findings import FAULT, OK, WARNING, Finding, words
from mmvanilla.checks.forward import find_core
from mmvanilla.checks.samples import Samples

_MISSING = "put the data there, or correct data_root, ann_file and data_prefix"
_SHOWN, _SIDE = 4, 320  # samples on a picture, and pixels of each, so that names can be read
_VISUALIZERS = dict(
    mmdet="DetLocalVisualizer", mmseg="SegLocalVisualizer", mmpretrain="UniversalVisualizer"
)
_HEADS = ("bbox_head", "mask_head", "decode_head", "auxiliary_head", "head", "panoptic_head")
# Proposals know objects from background only, and STDC's other head finds borders.
_OTHER_HEADS = {"RPNHead", "STDCHead", "ModuleList"}


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
    heads = dict(_heads(model)) if model is not None else {}
    for split in ("train", "val", "test") if thorough else ("train", "val"):
        loader = cfg.get(f"{split}_dataloader")
        if not isinstance(loader, Mapping) or (split == "test" and loader == cfg.val_dataloader):
            continue
        subject = f"{split} data"
        dataset, wrong = data_sets.build(loader["dataset"])
        if wrong:
            findings.append(Finding(FAULT, subject, wrong, _MISSING, certain=True))
        if dataset is None:
            continue
        parts = list(leaves(dataset))
        for index, part in enumerate(parts):
            file = data_sets.coco_file(part)
            given, classes = class_names(part), class_names(part, file)
            names[f"{subject}, part {index}" if len(parts) > 1 else subject] = classes
            if given != classes:
                text = f"the classes are {_listed(given)}, but {part.ann_file} has the categories "
                remedy = "name classes that it has, and sort its `categories` as they are"
                text += _listed(classes)
                findings.append(Finding(FAULT, subject, text, remedy, certain=True))
            if file is not None and len(part):
                some = part if thorough else part.get_subset(_spaced(len(part), images))
                findings += data_sets.compare_with_file(subject, some, file, split != "train")
        things = getattr(parts[0], "metainfo", {}).get("thing_classes")
        findings += _compare_heads(heads, subject, len(given), things)
        head = cfg.model.get("decode_head")
        ignored = head.get("ignore_index", 255) if isinstance(head, Mapping) else 255
        fed = Samples(subject, given, min(heads.values(), default=len(given)), ignored)
        findings += _take(fed, dataset, parts, images)
        if fed.samples:
            whole = data_sets.whole_counts(dataset) if thorough else None
            found = fed.describe(whole, len(dataset))
            findings += found if thorough else [item for item in found if item.certain]
            findings.append(_batch(cfg, loader, subject, fed.samples[:_SHOWN]))
            if show_dir is not None and split == "train":
                out = Path(show_dir, "train.png")
                _draw(cfg, dict(parts[0].metainfo), fed.samples[:_SHOWN], out)
                findings.append(Finding(OK, subject, f"{out} shows four samples"))
        seen[split] = fed.images
    if seen.get("train") and seen["train"] == seen.get("val"):
        text, remedy = "it reads the images of the training", "name others, or set test_mode=True"
        findings.append(Finding(WARNING, "val data", text, remedy))
    known = [(place, classes) for place, classes in names.items() if classes]
    for place, classes in known[1:]:
        if classes != known[0][1]:
            text = f"those of the {place} are {_listed(classes)}, and of the {known[0][0]} "
            remedy = "give all the same in one order: metainfo.classes, folders, or `categories`"
            text += _listed(known[0][1])
            findings.append(Finding(FAULT, "classes", text, remedy, certain=True))
    findings += _check_topk(cfg, heads)
    findings += _build_metrics(cfg) if thorough else []
    return list(dict.fromkeys(findings))


def _take(fed: Samples, dataset: Any, parts: Sequence[Any], images: int) -> list[Finding]:
    """Take samples from a data set until one does not fit, or raises an error."""
    for index in _spaced(len(dataset), images):
        info: Any = {}
        try:
            info = dataset.get_data_info(index)
            if len(parts) == 1 and hasattr(parts[0], "pipeline"):
                fed.load(parts[0], info)
            if not fed.misfits:
                fed.add(info, dataset[index])
        except Exception as error:  # whatever a transform of any origin raises
            text = f"{info.get('img_path') or f'image {index}'}: {words(error)}"
            remedy = "correct this file, its annotations, or the pipeline"
            return [Finding(FAULT, fed.subject, text, remedy, certain=True)]
        if fed.misfits:
            break
    return fed.misfits[:1]


def _heads(model: nn.Module) -> Iterator[tuple[str, int]]:
    """List the heads that know the number of classes: the name of the entry, and its value."""
    prefix, core = find_core(model)
    for name, module in core.named_modules():
        parts = [part for part in name.split(".") if not part.isdigit()]
        is_head = parts and parts[-1] in _HEADS and parts[:-1] in ([], ["roi_head"])
        count = getattr(module, "num_classes", None)
        if not is_head or _OTHER_HEADS & {kind.__name__ for kind in type(module).__mro__}:
            continue
        if hasattr(module, "num_things_classes"):
            count = module.num_things_classes + getattr(module, "num_stuff_classes", 0)
        if isinstance(count, int) and not getattr(module, "class_agnostic", False):
            yield f"model.{prefix}{name}.num_classes", count


def _compare_heads(
    heads: Mapping[str, int], subject: str, count: int, things: Any
) -> Iterator[Finding]:
    for entry, found in heads.items() if count else ():
        of_boxes = entry.endswith(("bbox_head.num_classes", "mask_head.num_classes"))
        expected = len(things) if things and of_boxes else count
        if found != expected:
            text = f"{entry} is {found}, but the {subject} have {expected} classes"
            remedy = f"set {entry}={expected}, or metainfo=dict(classes=...) of the data"
            status = WARNING if found > expected and not of_boxes else FAULT
            yield Finding(status, "classes", text, remedy)


def _batch(cfg: Config, loader: Any, subject: str, samples: Sequence[Any]) -> Finding:
    """Join samples as the loader does, and prepare them as the model does."""
    node = copy.deepcopy(cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {})
    is_classifier = cfg.get("default_scope") == "mmpretrain"
    node.setdefault("type", "ClsDataPreprocessor" if is_classifier else "BaseDataPreprocessor")
    training = subject.startswith("train")
    samples = copy.deepcopy(list(samples[: None if training else 1]))
    collate = loader.get("collate_fn") or dict(type="pseudo_collate")
    try:
        batch = FUNCTIONS.get(collate["type"])(samples)
        inputs = MODELS.build(node)(batch, training)["inputs"]
        low, high = inputs.aminmax()
    except Exception as error:
        remedy = "make the images equally large in the pipeline, or pad them in data_preprocessor"
        return Finding(FAULT, subject, f"no batch: {words(error)}", remedy, certain=True)
    text = f"a batch is {tuple(inputs.shape)}, with values {low:.3g} to {high:.3g}"
    return Finding(OK, subject, text)


def _check_topk(cfg: Config, heads: Mapping[str, int]) -> Iterator[Finding]:
    """Find accuracies of more classes than there are: they fail in the first validation."""
    classes = heads.get("model.head.num_classes")
    for name in ("val_evaluator", "test_evaluator"):
        nodes = cfg.get(name) or []
        for node in [nodes] if isinstance(nodes, Mapping) else nodes:
            topk = node.get("topk") or 1
            largest = topk if isinstance(topk, int) else max(topk)
            if classes is not None and largest > classes:
                text = f"topk={topk} asks for more than the {classes} classes"
                remedy = f"set {name}.topk=(1,)"
                yield Finding(FAULT, name, text, remedy, certain=True)


def _build_metrics(cfg: Config) -> Iterator[Finding]:
    for name in ("val_evaluator", "test_evaluator"):
        nodes = cfg.get(name) or []
        for node in [nodes] if isinstance(nodes, Mapping) else nodes:
            try:
                METRICS.build(copy.deepcopy(node))
            except Exception as error:  # whatever a metric of any origin raises
                yield Finding(FAULT, name, words(error), "correct it")


def _draw(cfg: Config, metainfo: dict[str, Any], samples: Sequence[Any], out: Path) -> None:
    """Draw samples side by side with their toolbox's visualizer."""
    kind = _VISUALIZERS.get(cfg.get("default_scope") or "", "Visualizer")
    visualizer: Any = VISUALIZERS.build(dict(type=kind, name="samples"))
    visualizer.dataset_meta = metainfo
    drawn = []
    for sample in samples:
        pixels = sample["inputs"].float().clip(0, 255).numpy().astype(np.uint8)
        image = np.ascontiguousarray(pixels.transpose(1, 2, 0)[..., ::-1])
        image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
        found = copy.deepcopy(sample["data_samples"])
        if kind == "UniversalVisualizer":
            scale = _SIDE / min(image.shape[:2])
            visualizer.visualize_cls(image, found, metainfo["classes"], rescale_factor=scale)
        else:
            if "gt_instances" in found:
                boxes = found.gt_instances.bboxes
                found.gt_instances.bboxes = getattr(boxes, "tensor", boxes)
            visualizer.add_datasample("sample", image, found, draw_pred=False)
        drawn.append(visualizer.get_image())
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
