"""Detect with a whole detector that :mod:`projects.mmdeploy.mmdeploy_export` exported.

Run as ``python -m projects.mmdeploy.detector_runner MODEL IMAGES``; it takes the options of
``mmvanilla predict``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

from mmvanilla.deploy import runner
from mmvanilla.deploy.runner_metadata import describe_data, describe_reading
from mmvanilla.deploy.runner_steps import STEPS
from mmvanilla.deploy.runner_tasks import TASKS, Task, colours_of
from mmvanilla.utils import cli

#: Detections below this score are not drawn.
DRAWN_SCORE = 0.3


def describe_detector(model: Any, cfg: Config, meta: dict[str, Any]) -> dict[str, str]:
    """Make the metadata entries ``classes`` and ``runner`` of a detector.

    Args:
        model: Detector of MMDetection.
        cfg: Config of the model.
        meta: Entry ``meta`` of its checkpoint.
    """
    known = describe_data(meta)
    head = getattr(getattr(model, "roi_head", None), "mask_head", None)
    rcnn = (model.test_cfg or {}).get("rcnn") or {}
    threshold = rcnn.get("mask_thr_binary", 0.5) if head is not None else 0.5
    settings = {**known, "task": "detection", "mask_threshold": threshold}
    try:
        settings.update(describe_reading(model, cfg))
        names = [step["type"] for step in settings["steps"]]
        if threshold < 0 or "Pad" in names[:-1] or "CenterCrop" in names:
            raise ValueError("its masks are not binary, or its pipeline crops or pads too early")
    except ValueError as error:
        settings = {**known, "refuses": str(error)}
    return {"runner": json.dumps(settings), "classes": json.dumps(known["classes"])}


def _detect(model: Any, inputs: np.ndarray, shape: tuple, original: tuple) -> dict[str, Any]:
    dets, labels, *masks = (output[0] for output in model.run(inputs))
    if not np.isfinite(dets).all():
        raise ValueError("the model's outputs are not finite for this image")
    found = (labels >= 0) & (dets[:, 4] > 0)  # the rest fills up
    boxes, scores = dets[found, :4], dets[found, 4]
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, shape[1])  # the graph knows of the padded size alone
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, shape[0])
    boxes = boxes / np.array(_scale(model.settings["steps"], original) * 2, np.float32)
    result = dict(labels=labels[found], scores=scores, bboxes=boxes)
    if masks:
        small = masks[0][found].reshape(-1, *masks[0].shape[-2:])
        pasted = [_paste(*pair, original) for pair in zip(small, boxes, strict=True)]
        threshold = model.settings["mask_threshold"]
        result["masks"] = np.array([mask >= threshold for mask in pasted]).reshape(-1, *original)
    return result


def _scale(steps: Sequence[dict[str, Any]], shape: tuple) -> tuple[float, float]:
    """Return the factors of the last resizing, of width and height, found on a blank image."""
    image, scale = np.zeros(shape, np.uint8), (1.0, 1.0)
    for step in steps:
        height, width = image.shape
        image = STEPS[step["type"]](image, step)
        if "interpolation" in step:
            scale = (image.shape[1] / width, image.shape[0] / height)
    return scale


def _paste(mask: np.ndarray, box: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Draw a mask of (h, w) probabilities into its box of an image, as grid_sample does."""
    weights = []
    for low, high, size, length in zip(
        box[:2][::-1], box[2:][::-1], mask.shape, shape, strict=True
    ):
        pixels = np.arange(length, dtype=np.float32)
        at = np.full(length, size / 2 - 0.5, np.float32)
        if high > low:
            at = (pixels + np.float32(0.5) - low) / (high - low) * np.float32(size) - np.float32(
                0.5
            )
        # How much of each row (column) of the mask is in each one of the image; as in MMDetection,
        # nothing is computed far from the box.
        part = np.maximum(1 - np.abs(at[:, None] - np.arange(size, dtype=np.float32)), 0)
        part[(pixels < np.floor(low) - 1) | (pixels >= np.ceil(high) + 1)] = 0
        weights.append(part)
    return weights[0] @ mask @ weights[1].T


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask (H, W) as COCO's uncompressed RLE: run lengths down the columns, 0 first."""
    flat = np.concatenate([[False], mask.T.ravel(), [not mask.T.ravel()[-1]]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return dict(size=list(mask.shape), counts=np.diff(changes, prepend=0).tolist())


def _to_json(model: Any, result: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value.tolist() for key, value in result.items() if key != "masks"}
    plain["names"] = [model.class_name(label) for label in plain["labels"]]
    if "masks" in result:
        plain["masks"] = [encode_mask(mask) for mask in result["masks"]]
    return plain


def _draw(model: Any, picture: np.ndarray, result: dict[str, Any]) -> list[np.ndarray]:
    colours = colours_of(model, int(max(result["labels"], default=0)) + 1)
    for index in np.flatnonzero(result["scores"] >= DRAWN_SCORE):
        label = int(result["labels"][index])
        colour = colours[label].tolist()
        if "masks" in result:
            inside = result["masks"][index]
            picture[inside] = (0.5 * picture[inside] + 0.5 * np.array(colour)).astype(np.uint8)
        x1, y1, x2, y2 = (round(float(value)) for value in result["bboxes"][index])
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, 1)
        text = f"{model.class_name(label)} {result['scores'][index]:.2f}"
        cv2.putText(picture, text, (x1, max(y1, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1)
    return [picture]


TASKS["detection"] = Task(_detect, _to_json, _draw)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return cli.run(runner.build_parser, runner.predict, argv)


if __name__ == "__main__":
    sys.exit(main())
