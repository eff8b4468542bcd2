"""A small made-up data set: coloured shapes on textured backgrounds, with exact masks.

It stands in for COCO, ADE20K and ImageNet wherever a download would be out of place. A mask holds
exactly the pixels whose centres lie in the shape. The module needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mmvanilla.datasets import layouts as files
from mmvanilla.datasets.scenes import Scene, grid, stack, surface

Stencil = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _regular_star(x: np.ndarray, y: np.ndarray, points: int = 5, inner: float = 0.45) -> np.ndarray:
    # Folded onto half a point, it is one side of the line from the tip (1, 0) to the notch.
    half = np.pi / points
    angle = np.abs((np.arctan2(y, x) + half) % (2 * half) - half)
    radius = np.hypot(x, y)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    notch_x, notch_y = inner * np.cos(half), inner * np.sin(half)
    return across * (1 - notch_x) <= (1 - along) * notch_y


# Which points of the unit disc belong to a class; the order determines the category ids.
_STENCILS: dict[str, Stencil] = {
    "circle": lambda x, y: x**2 + y**2 <= 0.9**2,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 0.75,
    "triangle": lambda x, y: np.maximum(y, np.sqrt(0.75) * abs(x) - y / 2) <= 0.5,
    "star": _regular_star,
    "cross": lambda x, y: (np.maximum(abs(x), abs(y)) <= 0.9) & (np.minimum(abs(x), abs(y)) <= 0.3),
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.75) <= 0.2,
}

CLASSES: tuple[str, ...] = tuple(_STENCILS)  #: of the imagenet layout
SCENE_CLASSES: tuple[str, ...] = CLASSES[:3]  #: of coco, and behind the background of ade20k
LAYOUTS = ("coco", "ade20k", "imagenet")
RECIPE_VERSION = 2  # increase it with every change to the pixels

# A small square that stands on a corner is hard to tell from a circle.
_MAX_TILT = np.pi / 12


def _stencil(
    rng: np.random.Generator, name: str, size: int, radius: float, centre: tuple[float, float]
) -> np.ndarray:
    """Draw a slightly stretched and tilted shape: (size, size) bool, True inside."""
    angle, aspect = rng.uniform(-_MAX_TILT, _MAX_TILT), rng.uniform(0.85, 1.0)
    x, y = grid(size)
    x, y = (x - centre[0]) / radius, (y - centre[1]) / radius
    turned_x = x * np.cos(angle) + y * np.sin(angle)
    turned_y = (y * np.cos(angle) - x * np.sin(angle)) / aspect
    return _STENCILS[name](turned_x, turned_y)


def _render(
    rng: np.random.Generator, size: int, stencils: Sequence[np.ndarray], labels: Sequence[int]
) -> Scene:
    owner, kept = stack(stencils)
    # Evenly spaced hues tell overlapping shapes apart; random ones do not reveal the class.
    hues = rng.permutation(len(kept) + 1) / (len(kept) + 1) + rng.uniform()
    image = surface(rng, size, hues[-1], is_background=True)
    for position in range(len(kept)):
        visible = owner == position
        image[visible] = surface(rng, size, hues[position], is_background=False)[visible]
    return Scene(image, owner, tuple(labels[index] for index in kept))


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """Draw 1 to 5 overlapping shapes of ``SCENE_CLASSES``, 1/8 to 1/2 as wide as the image."""
    labels = rng.integers(len(SCENE_CLASSES), size=rng.integers(1, 6)).tolist()
    stencils = []
    for label in labels:
        # Small shapes are as frequent as large ones; below 4 pixels none can be recognised.
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


def make_shapes(
    root: str | Path,
    layouts: Sequence[str] = LAYOUTS,
    num_train: int = 1200,
    num_val: int = 100,
    image_size: int = 128,
    seed: int = 0,
) -> tuple[str, ...]:
    """Write the data set below ``root``, in layouts that :mod:`mmvanilla.datasets.layouts` tells.

    Images are ``image_size`` pixels wide and high, and the same for the same seed. Returned are the
    names of the new layouts: those that were made from the same arguments before stay.

    Raises:
        ValueError: A number is out of range, a layout is unknown, or its folder holds other files.
    """
    numbers = {"num_train": num_train, "num_val": num_val, "image_size": image_size, "seed": seed}

    def scenes() -> files.Scenes:
        return files.draw_splits(lambda rng, split, i: draw_scene(rng, image_size), numbers)

    def portrait(rng: np.random.Generator, split: str, index: int) -> Scene:
        return draw_portrait(rng, image_size, index % len(CLASSES))

    portraits = files.draw_splits(portrait, numbers, stream=1)
    writers = {
        "coco": lambda folder: files.write_coco(folder, scenes(), SCENE_CLASSES, "shape"),
        "ade20k": lambda folder: files.write_ade20k(folder, scenes()),
        "imagenet": lambda folder: files.write_imagenet(folder, portraits, CLASSES),
    }
    return files.make_layouts(root, layouts, writers, {"version": RECIPE_VERSION, **numbers})
