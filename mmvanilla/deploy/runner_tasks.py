"""Say and draw what a network's outputs mean, without PyTorch: a part of the runner."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

from mmvanilla.deploy.runner_steps import interpolate


class Task(NamedTuple):
    """What a model is for, as functions whose first argument is its predictor.

    ``predict`` makes a dict of what ``prepare_image`` gives, and the image's height and width.
    ``to_json`` makes of it what JSON can hold; ``draw``, with a picture, (H, W, 3) BGR, pictures.
    """

    predict: Callable[..., dict[str, Any]]
    to_json: Callable[[Any, dict[str, Any]], dict[str, Any]]
    draw: Callable[[Any, np.ndarray, dict[str, Any]], list[np.ndarray]]
    endings: tuple[str, ...] = (".png",)


def _run(model: Any, inputs: np.ndarray) -> np.ndarray:
    output = model.run(inputs)[0][0]
    if not np.isfinite(output).all():
        raise ValueError("the model's outputs are not finite for this image")
    return output


def _classify(model: Any, inputs: np.ndarray, *_: Any) -> dict[str, Any]:
    scores = _run(model, inputs)
    settings = model.settings
    if settings["scores_of"] == "softmax":
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
    elif settings["scores_of"] == "sigmoid":
        scores = 1 / (1 + np.exp(-scores))
    best = int(scores.argmax())
    result: dict[str, Any] = dict(pred_score=float(scores[best]), pred_scores=scores)
    if not settings["multi_label"]:
        return dict(result, pred_label=best, pred_class=model.class_name(best))
    found = np.argsort(-scores, kind="stable")[: settings["topk"]]
    if settings["threshold"] is not None:
        found = np.flatnonzero(scores >= settings["threshold"])
    labels = found.tolist()
    return dict(result, pred_label=labels, pred_class=[model.class_name(each) for each in labels])


def _classes_to_json(model: Any, result: dict[str, Any]) -> dict[str, Any]:
    return dict(result, pred_scores=result["pred_scores"].tolist())


def _write_classes(model: Any, picture: np.ndarray, result: dict[str, Any]) -> list[np.ndarray]:
    names = result["pred_class"] if model.settings["multi_label"] else [result["pred_class"]]
    text = f"{', '.join(names)} {result['pred_score']:.2f}"
    cv2.putText(picture, text, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 255), 1)
    return [picture]


def _segment(model: Any, inputs: np.ndarray, shape: tuple, original: tuple) -> dict[str, Any]:
    settings, size = model.settings, inputs.shape[2:]
    crop, stride = settings["slide"] or (size, size)
    total: Any = 0.0
    count = np.zeros(size, np.float32)
    for top, left in itertools.product(*map(_windows, size, crop, stride)):
        rows, columns = slice(top, top + crop[0]), slice(left, left + crop[1])
        window = np.ascontiguousarray(inputs[:, :, rows, columns])
        logits = interpolate(_run(model, window), window.shape[2:])
        if count.max() == 0:
            total = np.zeros((len(logits), *size), np.float32)
        total[:, rows, columns] += logits
        count[rows, columns] += 1
    logits = interpolate((total / count)[:, : shape[0], : shape[1]], original)
    if len(logits) > 1:
        return dict(labels=logits.argmax(axis=0))
    return dict(labels=(1 / (1 + np.exp(-logits[0])) > settings["threshold"]).astype(int))


def _windows(size: int, crop: int, stride: int) -> list[int]:
    """Return where the windows of sliding inference begin; the last ones end with the image."""
    count = max(size - crop + stride - 1, 0) // stride + 1
    return [max(min(index * stride, size - crop), 0) for index in range(count)]


def _count_pixels(model: Any, result: dict[str, Any]) -> dict[str, Any]:
    labels, pixels = np.unique(result["labels"], return_counts=True)
    shares: dict[str, int] = {}
    for each, count in zip(labels, pixels):  # two labels may have one name
        name = model.class_name(int(each))
        shares[name] = shares.get(name, 0) + int(count)
    return dict(size=list(result["labels"].shape), pixels=shares)


def _paint_classes(model: Any, picture: np.ndarray, result: dict[str, Any]) -> list[np.ndarray]:
    labels = result["labels"]
    mixed = cv2.addWeighted(picture, 0.5, colours_of(model, labels.max() + 1)[labels], 0.5, 0)
    return [mixed, labels.astype(np.uint8 if labels.max() < 256 else np.uint16)]


#: The tasks that a predictor knows. ``classification`` gives pred_label and pred_class (lists, if
#: a thing may have several labels), pred_score and pred_scores; ``segmentation`` labels, (H, W).
TASKS: dict[str, Task] = {
    "classification": Task(_classify, _classes_to_json, _write_classes),
    "segmentation": Task(_segment, _count_pixels, _paint_classes, (".png", "_labels.png")),
}


def colours_of(model: Any, count: int) -> np.ndarray:
    """Return a colour for each class, (K, 3) BGR: the data set's, or one of its own."""
    own = [(67 * index % 256, 151 * index % 256, 211 * index % 256) for index in range(count)]
    return np.array((model.settings["palette"] + own)[:count], np.uint8)[:, ::-1]


def as_picture(image: np.ndarray) -> np.ndarray:
    """Copy an image of any number of channels and bits as (H, W, 3) uint8, to draw into it."""
    if image.dtype != np.uint8:  # its brightest value becomes white
        image = (image * (255.0 / max(float(image.max()), 1e-9))).clip(0, 255).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] < 3:
        return cv2.cvtColor(image.reshape(*image.shape[:2], -1)[..., 0], cv2.COLOR_GRAY2BGR)
    return image[..., :3].copy()
