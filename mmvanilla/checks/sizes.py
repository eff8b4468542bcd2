"""Choose the sizes of the images that a check runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from torch import nn

from mmvanilla.apis.model import DEFAULT_SIZES, fixed_input_size

# Every stride up to 128 divides it, and two strides that differ give different maps.
LARGE = (1024, 1280)
_KEYS = ("crop_size", "size", "scale", "img_scale", "scales")


def sizes_to_check(cfg: Config, model: nn.Module) -> list[tuple[int, int]]:
    """Choose the sizes at which a model is run, the usual one first.

    Args:
        cfg: The config that the model was built from.
        model: The model.

    Returns:
        Height and width in pixels: one size if the model takes no other, else two.
    """
    only = fixed_input_size(model) or _anchors_size(model)
    if only is not None:
        return [only]
    return [usual_size(cfg), LARGE]


def usual_size(cfg: Config) -> tuple[int, int]:
    """Return height and width of the images that a config trains with, in pixels.

    They are read from the data preprocessor or from the training pipeline, padded as the
    preprocessor does. Without either, it is the usual size of the toolbox.
    """
    preprocessor = (cfg.get("model") or {}).get("data_preprocessor") or {}
    size = _pair(preprocessor.get("size"))
    size = size or next(_pipeline_sizes(cfg), None)
    size = size or DEFAULT_SIZES.get(cfg.get("default_scope") or "", (224, 224))
    divisor = preprocessor.get("pad_size_divisor") or 1
    height, width = (math.ceil(pixels / divisor) * divisor for pixels in size)
    return height, width


def _anchors_size(model: nn.Module) -> tuple[int, int] | None:
    """Return the size that anchors were made for, as those of SSD are."""
    for module in model.modules():
        size = getattr(getattr(module, "prior_generator", None), "input_size", None)
        if isinstance(size, int):
            return size, size
    return None


def _pipeline_sizes(cfg: Config) -> Iterator[tuple[int, int]]:
    """Read the sizes of the training pipeline from its end, where the last one counts."""
    loader = cfg.get("train_dataloader") or cfg.get("test_dataloader") or {}
    dataset: Any = loader.get("dataset") or {}
    while isinstance(dataset, Mapping) and "dataset" in dataset:
        if dataset.get("pipeline"):
            break
        dataset = dataset["dataset"]
    steps = dataset.get("pipeline") if isinstance(dataset, Mapping) else None
    for step in reversed(steps or []):
        if not isinstance(step, Mapping):
            continue
        for key in _KEYS:
            value = step.get(key)
            if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple):
                value = min(value)
            size = _pair(value)
            if size is not None:
                # OpenMMLab writes a scale as (width, height), and a crop as (height, width).
                yield size if "crop" in key else (min(size), max(size))


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value, value
    if (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(pixels, int) and pixels > 0 for pixels in value)
    ):
        return value[0], value[1]
    return None
