"""Check that a choice looks at other images than the training and the reported result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset

from mmvanilla.apis.config import use_scope
from mmvanilla.apis.data_checks import class_of_dataset, find_datasets, require_data

# Some data sets have the same image several times, so a few common images are no overlap.
_TOLERATED = 0.1


def require_held_out(table: Config, choice: Config) -> None:
    """Refuse a choice on images that are trained on, or whose results are reported.

    Images are compared by their path or, where a data set keeps them in memory, by their pixels.
    Data sets that have neither are compared by their configs.

    Args:
        table: The config whose ``val_dataloader`` gives the reported results.
        choice: The same config with the options of the choice.

    Raises:
        FileNotFoundError: A data set does not exist.
        ValueError: More than a tenth of the images of the choice are those of the training, or of
            the reported results.
    """
    require_data(choice, "train_dataloader", "val_dataloader")
    require_data(table, "val_dataloader")
    remedy = (
        "let --choose-on hold other training images out, as val_dataloader.dataset.indices=-10000"
    )
    if choice.val_dataloader.dataset == table.val_dataloader.dataset:
        raise ValueError(
            f"{table.filename}: a value would be chosen on the data whose results are reported; "
            f"{remedy}"
        )
    held_out = _images(choice, "val_dataloader")
    others = {
        "trained on": _images(choice, "train_dataloader"),
        "validated on for the table": _images(table, "val_dataloader"),
    }
    for use, images in others.items():
        common = len(held_out & images)
        if common > _TOLERATED * len(held_out):
            raise ValueError(
                f"{table.filename}: {common:,} of the {len(held_out):,} images on which a value "
                f"would be chosen are also {use}; {remedy}"
            )


def _images(cfg: Config, dataloader: str) -> set[str]:
    use_scope(cfg)
    found: set[str] = set()
    for node in find_datasets(cfg[dataloader]):
        kind = class_of_dataset(node)
        if kind is None or not issubclass(kind, BaseDataset):
            continue
        options = {key: value for key, value in node.items() if key != "type"}
        dataset = kind(**{**options, "pipeline": []})
        for index in range(len(dataset)):
            found |= _identity(dataset.get_data_info(index))
    return found


def _identity(sample: Mapping[str, Any]) -> set[str]:
    if sample.get("img_path"):
        return {str(sample["img_path"])}
    pixels: Any = sample.get("img")
    if hasattr(pixels, "tobytes"):
        return {hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()}
    return set()
