"""Scenes of drawn objects that hide each other, with the annotations of their visible pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# An object of which a smaller part is visible is left out of the scene, pixels included: it would
# be too hard to recognise.
_MIN_VISIBLE = 0.35


@dataclass(frozen=True)
class Scene:
    """One image, and which object each of its pixels shows.

    Attributes:
        image: Pixels in RGB, (H, W, 3) uint8.
        owner: Index of the object that each pixel shows, (H, W); -1 for the background.
        labels: Class index of each object.
    """

    image: np.ndarray
    owner: np.ndarray
    labels: tuple[int, ...]


def stack(stencils: Sequence[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """Lay stencils over each other, the last one on top, and drop those that are mostly hidden.

    Returns:
        For each pixel the position of its stencil in the list of kept ones, (H, W), -1 for none;
        and that list, as indices into ``stencils``.
    """

    def lay(indices: Sequence[int]) -> np.ndarray:
        owner = np.full(stencils[0].shape, -1, dtype=np.int64)
        for position, index in enumerate(indices):
            owner[stencils[index]] = position
        return owner

    owner = lay(range(len(stencils)))
    kept = [
        index
        for index, stencil in enumerate(stencils)
        if np.count_nonzero(owner == index) >= max(1, _MIN_VISIBLE * np.count_nonzero(stencil))
    ]
    return lay(kept), kept


def encode_rle(mask: np.ndarray) -> dict[str, list[int]]:
    """Encode a (H, W) bool mask as COCO's uncompressed RLE: column-major runs, zeros first."""
    flat = np.concatenate(([False], mask.ravel(order="F")))
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate(([0], starts, [mask.size])))
    return {"size": list(mask.shape), "counts": runs.tolist()}


def coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    """Make the annotations of a scene in COCO's format, with ids from ``first_id`` on."""
    annotations = []
    for position, label in enumerate(scene.labels):
        mask = scene.owner == position
        annotations.append(
            {
                "id": first_id + position,
                "image_id": image_id,
                "category_id": label + 1,
                "bbox": list(cv2.boundingRect(mask.astype(np.uint8))),
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": encode_rle(mask),
            }
        )
    return annotations


def label_map(scene: Scene) -> np.ndarray:
    """Make a label map as in ADE20K, (H, W) uint8: 1 is the background, 2 + c is class c."""
    by_position = np.array([*(label + 2 for label in scene.labels), 1], dtype=np.uint8)
    return by_position[scene.owner]  # owner -1 picks the last: the background
