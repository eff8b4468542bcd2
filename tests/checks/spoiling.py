"""Ways to spoil the shapes, or a config that reads them: each is a function of the config."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Change = Callable[[Any], object]
SPLITS = ("train", "val")


def option(**values: Any) -> Change:
    return lambda cfg: cfg.merge_from_dict({k.replace("__", "."): v for k, v in values.items()})


def coco(change: Change, split: str = "train") -> Change:
    """A change of the annotation file."""

    def spoil(cfg: Any) -> None:
        path = Path(f"data/shapes/coco/annotations/instances_{split}.json")
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def each(change: Change, of: str = "annotations", split: str = "train") -> Change:
    """A change of all annotations or images of a COCO file."""
    return coco(lambda content: [change(item) for item in content[of]], split)


def without(key: str, of: str = "annotations", split: str = "train") -> Change:
    return each(lambda item: item.pop(key), of, split)


def boxes(change: Callable[..., list[float]]) -> Change:
    return each(lambda item: item.update(bbox=change(*item["bbox"])))


def labels(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """A change of the label maps."""

    def spoil(cfg: Any) -> None:
        for path in Path("data/shapes/ade20k/annotations/training").glob("*.png"):
            changed = change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
            cv2.imwrite(str(path), changed.astype(np.uint8))

    return spoil


def remove(pattern: str) -> Change:
    def spoil(cfg: Any) -> None:
        for path in [*Path("data/shapes").glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def without_squares(content: dict[str, Any]) -> None:
    every = content["annotations"]
    content["annotations"] = [item for item in every if item["category_id"] != 2]


def for_both(**values: Any) -> Change:
    names = {k: f"dataloader__dataset__{k}" for k in values}
    return option(**{f"{split}_{names[k]}": values[k] for k in values for split in SPLITS})


def resize_before_the_labels(cfg: Any) -> None:
    steps = cfg.train_dataloader.dataset.pipeline
    steps[1:3] = [dict(type="mmcv.Resize", scale=(32, 32)), steps[1]]


def listed_from_1(cfg: Any) -> None:
    """A list of files with labels, as MMPretrain's CustomDataset reads it without names."""
    root = Path("data/shapes/imagenet/train")
    files = [path.relative_to(root) for path in sorted(root.glob("*/*"))]
    names = sorted({path.parent.name for path in files})
    lines = [f"{path} {names.index(path.parent.name) + 1}" for path in files]
    Path("train.txt").write_text("\n".join(lines))
    own = dict(type="CustomDataset", data_root="", data_prefix=str(root), ann_file="train.txt")
    dataset = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(own, pipeline=dataset.pipeline)
