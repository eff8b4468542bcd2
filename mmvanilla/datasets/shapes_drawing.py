"""Draw shapes on textured backgrounds, with their annotations.

All functions depend only on the random generator that they are given; ``shapes_files.py`` writes
the results to files. The pixels are drawn with numpy rather than OpenCV, since the same seed must
give the same pixels with every version of OpenCV, and a mask must hold exactly the pixels whose
centres lie in the shape.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Stencil = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _regular_star(x: np.ndarray, y: np.ndarray, points: int = 5, inner: float = 0.45) -> np.ndarray:
    # Fold the plane by the symmetry of the star, onto half of one of its points. There the star is
    # the region on one side of the line from the tip (1, 0) to the notch at radius `inner`.
    half = np.pi / points
    angle = np.abs((np.arctan2(y, x) + half) % (2 * half) - half)
    radius = np.hypot(x, y)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    notch_x, notch_y = inner * np.cos(half), inner * np.sin(half)
    return across * (1 - notch_x) <= (1 - along) * notch_y


# One line for each class: which points of the unit disc belong to it. To add a shape, append a
# line; the order determines the category ids.
_STENCILS: dict[str, Stencil] = {
    "circle": lambda x, y: x**2 + y**2 <= 0.9**2,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 0.75,
    "triangle": lambda x, y: np.maximum(y, np.sqrt(0.75) * abs(x) - y / 2) <= 0.5,
    "star": _regular_star,
    "cross": lambda x, y: (np.maximum(abs(x), abs(y)) <= 0.9) & (np.minimum(abs(x), abs(y)) <= 0.3),
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.75) <= 0.2,
}

CLASSES: tuple[str, ...] = tuple(_STENCILS)
"""All shapes: the classes of the imagenet layout."""
PALETTE: tuple[tuple[int, int, int], ...] = (
    (220, 20, 60),
    (0, 114, 189),
    (60, 179, 75),
    (237, 177, 32),
    (126, 47, 142),
    (77, 190, 238),
)
"""An RGB colour for each of ``CLASSES``, to draw predictions with."""
SCENE_CLASSES: tuple[str, ...] = CLASSES[:3]
"""The classes of the coco layout."""

# A shape of which a smaller part is visible is left out of the scene, pixels included: it would be
# too hard to recognise.
_MIN_VISIBLE = 0.35


@dataclass(frozen=True)
class Scene:
    """One image, and which shape each of its pixels shows.

    Attributes:
        image: Pixels in RGB, (H, W, 3) uint8.
        owner: Index of the shape that each pixel shows, (H, W); -1 for the background.
        labels: Class index of each shape.
    """

    image: np.ndarray
    owner: np.ndarray
    labels: tuple[int, ...]


# Shapes stay nearly upright, so that a few hundred images are enough to learn squares and
# triangles: a square that stands on a corner and is 16 pixels wide is hard to tell from a circle.
_MAX_TILT = np.pi / 12


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    centres = np.arange(size, dtype=np.float64) + 0.5
    return centres[None, :], centres[:, None]


def _stencil(
    rng: np.random.Generator, name: str, size: int, radius: float, centre: tuple[float, float]
) -> np.ndarray:
    """Draw a slightly stretched and tilted shape: (size, size) bool, True inside."""
    angle, aspect = rng.uniform(-_MAX_TILT, _MAX_TILT), rng.uniform(0.85, 1.0)
    x, y = _grid(size)
    x, y = (x - centre[0]) / radius, (y - centre[1]) / radius
    turned_x = x * np.cos(angle) + y * np.sin(angle)
    turned_y = (y * np.cos(angle) - x * np.sin(angle)) / aspect
    return _STENCILS[name](turned_x, turned_y)


def _pattern(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a gradient, stripes, a chequerboard or smooth noise: (size, size) in [-1, 1]."""
    kind = rng.integers(4)
    x, y = _grid(size)
    x, y = 2 * x / size - 1, 2 * y / size - 1
    angle = rng.uniform(0, 2 * np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == 0:
        return along / np.sqrt(2)
    if kind in (1, 2):
        turns, shift = np.pi * rng.uniform(2, 9), rng.uniform(0, 2 * np.pi)
        wave = np.sin(turns * along + shift)
        return wave if kind == 1 else np.sign(wave * np.sin(turns * across + shift))
    cells = int(rng.integers(4, 17))
    nodes = rng.uniform(-1, 1, (cells + 1, cells + 1))
    place = (np.arange(size) + 0.5) / size * cells
    low = place.astype(np.int64)
    part = place - low
    rows = nodes[low] * (1 - part)[:, None] + nodes[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _surface(rng: np.random.Generator, size: int, hue: float, is_background: bool) -> np.ndarray:
    """Draw one colour shaded by a pattern, (size, size, 3) uint8; backgrounds are paler."""
    saturation = rng.uniform(0.1, 0.4) if is_background else rng.uniform(0.6, 1.0)
    value = rng.uniform(0.35, 0.75) if is_background else rng.uniform(0.6, 1.0)
    strength = rng.uniform(0.1, 0.3)
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))
    shade = 1 + strength * _pattern(rng, size)
    shade += rng.uniform(-0.03, 0.03, (size, size))  # grain
    return np.clip(np.rint(colour * shade[..., None]), 0, 255).astype(np.uint8)


def _stack(stencils: Sequence[np.ndarray]) -> tuple[np.ndarray, list[int]]:
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


def _render(
    rng: np.random.Generator, size: int, stencils: Sequence[np.ndarray], labels: Sequence[int]
) -> Scene:
    owner, kept = _stack(stencils)
    # The hues are evenly spaced, so that overlapping shapes differ in colour, and random, so that
    # the colour does not reveal the class.
    hues = rng.permutation(len(kept) + 1) / (len(kept) + 1) + rng.uniform()
    image = _surface(rng, size, hues[-1], is_background=True)
    for position in range(len(kept)):
        visible = owner == position
        image[visible] = _surface(rng, size, hues[position], is_background=False)[visible]
    return Scene(image, owner, tuple(labels[index] for index in kept))


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """Draw 1 to 5 overlapping shapes of ``SCENE_CLASSES``, 1/8 to 1/2 as wide as the image."""
    labels = rng.integers(len(SCENE_CLASSES), size=rng.integers(1, 6)).tolist()
    stencils = []
    for label in labels:
        # Uniform on a log scale: small shapes are as frequent as large ones. A shape with a radius
        # below 4 pixels cannot be recognised.
        radius = max(4.0, size * float(np.exp(rng.uniform(np.log(1 / 14), np.log(1 / 4)))))
        x, y = rng.uniform(0.7 * radius, size - 0.7 * radius, size=2)
        stencils.append(_stencil(rng, SCENE_CLASSES[label], size, radius, (x, y)))
    return _render(rng, size, stencils, labels)


def draw_portrait(rng: np.random.Generator, size: int, label: int) -> Scene:
    """Draw one large shape of the class ``label`` over up to three small ones of other classes."""
    stencils, labels = [], []
    for other in rng.permutation(np.delete(np.arange(len(CLASSES)), label))[: rng.integers(4)]:
        x, y = rng.uniform(0, size, size=2)
        radius = size * rng.uniform(0.06, 0.1)
        stencils.append(_stencil(rng, CLASSES[other], size, radius, (x, y)))
        labels.append(int(other))
    radius = size * rng.uniform(0.24, 0.42)
    x, y = rng.uniform(0.9 * radius, size - 0.9 * radius, size=2)
    stencils.append(_stencil(rng, CLASSES[label], size, radius, (x, y)))
    return _render(rng, size, stencils, [*labels, label])


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
