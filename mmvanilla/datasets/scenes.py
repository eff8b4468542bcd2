"""Scenes of drawn objects that hide each other, on backgrounds of one shaded colour.

They are drawn with numpy, not OpenCV: a seed gives the same pixels with every version of it.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MIN_VISIBLE = 0.35  # objects of which less is visible are left out: too hard to recognise


@dataclass(frozen=True)
class Scene:
    """One image, and which object each of its pixels shows."""

    image: np.ndarray  #: (H, W, 3) uint8, RGB
    owner: np.ndarray  #: (H, W): index of the object, -1 for the background
    labels: tuple[int, ...]  #: class of each object


def stack(stencils: Sequence[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """Lay stencils over each other, the last one on top, and drop those that are mostly hidden.

    Returned are each pixel's index into the kept ones, (H, W), -1 for none, and their own indices.
    """

    def lay(indices: Sequence[int]) -> np.ndarray:
        owner = np.full(stencils[0].shape, -1, dtype=np.int64)
        for position, index in enumerate(indices):
            owner[stencils[index]] = position
        return owner

    owner = lay(range(len(stencils)))
    visible = [np.count_nonzero(owner == index) for index in range(len(stencils))]
    least = [max(1, _MIN_VISIBLE * np.count_nonzero(stencil)) for stencil in stencils]
    kept = [index for index, count in enumerate(visible) if count >= least[index]]
    return lay(kept), kept


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the x (1, size) and the y (size, 1) of the centres of an image's pixels."""
    centres = np.arange(size, dtype=np.float64) + 0.5
    return centres[None, :], centres[:, None]


def surface(rng: np.random.Generator, size: int, hue: float, is_background: bool) -> np.ndarray:
    """Draw one colour shaded by a pattern, (size, size, 3) uint8; backgrounds are paler."""
    saturation = rng.uniform(0.1, 0.4) if is_background else rng.uniform(0.6, 1.0)
    value = rng.uniform(0.35, 0.75) if is_background else rng.uniform(0.6, 1.0)
    strength = rng.uniform(0.1, 0.3)
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))
    shade = 1 + strength * _pattern(rng, size)
    shade += rng.uniform(-0.03, 0.03, (size, size))  # grain
    return np.clip(np.rint(colour * shade[..., None]), 0, 255).astype(np.uint8)


def _pattern(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a gradient, stripes, a chequerboard or smooth noise: (size, size) in [-1, 1]."""
    kind = rng.integers(4)
    x, y = grid(size)
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
