"""Turn an image file into a network's input as OpenMMLab does, without it: a part of the runner."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np


def prepare_image(
    image: np.ndarray, settings: dict[str, Any]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Turn an image, (H, W) or (H, W, C) as BGR, into an input, (1, C, H, W) float32.

    Returned, too: height and width before the last padding.
    """
    if settings["to_float32"]:
        image = image.astype(np.float32)
    for step in settings["steps"]:
        image = STEPS[step["type"]](image, step)
    pixels, channels = image[..., None] if image.ndim == 2 else image, settings["channels"]
    if (found := pixels.shape[2]) not in (1, channels):
        raise ValueError(f"the model takes images of {channels} channels, and this one has {found}")
    if settings["channel_order"] == "RGB" and pixels.shape[2] == 3:
        pixels = pixels[..., ::-1]
    inputs = pixels.transpose(2, 0, 1).astype(np.float32)
    if settings["mean"] is not None:
        mean, std = (np.array(settings[key], np.float32)[:, None, None] for key in ("mean", "std"))
        inputs = (inputs - mean) / std
    height, width = inputs.shape[1:]
    below, right = _padding(height, width, settings["pad"])
    value = settings["pad"]["pad_val"]
    inputs = np.pad(inputs, ((0, 0), (0, below), (0, right)), constant_values=value)
    return np.ascontiguousarray(inputs[None]), (height, width)


def _padding(height: int, width: int, pad: dict[str, Any]) -> tuple[int, int]:
    """Return how many pixels to add below and on the right; a size is (width, height), as there."""
    divisor = pad["size_divisor"] or 1
    sides = (max(height, width),) * 2 if pad.get("pad_to_square") else (height, width)
    right, below = pad["size"] or [math.ceil(side / divisor) * divisor for side in sides[::-1]]
    return max(below - height, 0), max(right - width, 0)


def _resize_to(image: np.ndarray, size: tuple[int, int], step: dict[str, Any]) -> np.ndarray:
    if step["backend"] == "pillow":
        from PIL import Image

        return np.asarray(Image.fromarray(image).resize(size, step["interpolation"]))
    return cv2.resize(image, size, interpolation=step["interpolation"])


def _resize(image: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    height, width = image.shape[:2]
    size = tuple(step["scale"] or ())
    if not size:
        x, y = step["scale_factor"]
        size = (int(width * float(x) + 0.5), int(height * float(y) + 0.5))
    if step["keep_ratio"]:
        factor = min(max(size) / max(height, width), min(size) / min(height, width))
        size = (int(width * factor + 0.5), int(height * factor + 0.5))
    return _resize_to(image, size, step)


def _resize_edge(image: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    (height, width), edge, scale = image.shape[:2], step["edge"], step["scale"]
    if {"width": True, "short": width < height, "long": width > height}.get(edge):
        return _resize_to(image, (scale, int(scale * height / width)), step)
    return _resize_to(image, (int(scale * width / height), scale), step)


def _center_crop(image: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    width, height = (min(size, old) for size, old in zip(step["crop_size"], image.shape[1::-1]))
    top = max(0, round((image.shape[0] - height) / 2.0))
    left = max(0, round((image.shape[1] - width) / 2.0))
    return image[top : top + height, left : left + width]


def _pad(image: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    height, width = image.shape[:2]
    below, right = _padding(height, width, step)
    value = np.broadcast_to(step["pad_val"].get("img", 0), image.shape[2:] or (1,)).tolist()
    return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=value)


#: The steps of a pipeline that the runner knows, by the names of OpenMMLab's.
STEPS: dict[str, Callable[[np.ndarray, dict[str, Any]], np.ndarray]] = {
    "Resize": _resize,
    "ResizeEdge": _resize_edge,
    "CenterCrop": _center_crop,
    "Pad": _pad,
}


def interpolate(maps: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize maps, (K, H, W), to a height and width as PyTorch's bilinear interpolation does."""
    return np.stack([cv2.resize(each, tuple(size[::-1])) for each in maps])
