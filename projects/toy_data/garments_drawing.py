"""Cut garments out of photographs, and draw them on textured backgrounds.

A photograph of Fashion-MNIST has a garment in light grey on black. :func:`silhouette` finds the
garment's pixels; :func:`draw_scene` enlarges, turns, dyes and overlaps several garments. All
functions depend only on the random generator that they are given.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np

from mmvanilla.datasets.scenes import Scene, stack, surface
from projects.toy_data.fashion_mnist import CLASSES, SIZE, Photographs

# The background of the photographs is 0, with a little noise around some garments.
_THRESHOLD = 12
# Parts of a garment that are not connected, such as straps, have at least this part of the largest
# one's pixels; smaller ones are noise.
_MIN_PART = 0.1
# One looks through the handles of bags and between the straps of sandals. All other holes, and
# small ones, are light fabric, which is as dark in these negatives as the background.
_OPEN_CLASSES = {CLASSES.index("Sandal"), CLASSES.index("Bag")}
_MIN_OPENING = 6  # pixels
_MIN_SILHOUETTE = 40  # pixels; less cannot be recognised

# Garments stay nearly upright, and lighter where the data set has them lighter, so that some
# thousands of images are enough to tell ten classes apart.
_MAX_TILT = np.pi / 12
_FEWEST, _MOST = 3, 7  # garments in an image
_SMALLEST, _LARGEST = 0.25, 0.5  # width of a photograph, in widths of the image
_PARTS = 3  # a pixel is the mean of 3 × 3 parts
_GREY_SHARE = 0.3  # of the garments stay as grey as photographed
_FINE = 4  # a garment is enlarged by this before it is turned


@dataclass(frozen=True)
class Wardrobe:
    """The photographs of one split that show enough of a garment, sorted by class.

    Attributes:
        images: Grey values, (N, 28, 28) uint8.
        by_class: Indices of the images of each class.
    """

    images: np.ndarray
    by_class: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, photographs: Photographs, split: str) -> Wardrobe:
        """Sort photographs.

        Raises:
            ValueError: A class has no photograph.
        """
        shown = (photographs.images > _THRESHOLD).sum(axis=(1, 2)) >= _MIN_SILHOUETTE
        by_class = tuple(
            np.flatnonzero(shown & (photographs.labels == label)) for label in range(len(CLASSES))
        )
        for name, indices in zip(CLASSES, by_class, strict=True):
            if not len(indices):
                raise ValueError(
                    f"the {split} photographs show no garment of the class {name}, expected all "
                    "classes of Fashion-MNIST; take its own files"
                )
        return cls(photographs.images, by_class)


def silhouette(photograph: np.ndarray, label: int) -> np.ndarray:
    """Find the pixels of the garment in a photograph.

    Args:
        photograph: Grey values, (28, 28) uint8.
        label: Class of the garment, which tells whether one may look through it.

    Returns:
        True where the garment is, (28, 28) bool.
    """
    count, parts, stats, _ = cv2.connectedComponentsWithStats(
        (photograph > _THRESHOLD).astype(np.uint8), connectivity=8
    )
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # the background
    garment = np.isin(parts, np.flatnonzero(areas >= max(1, _MIN_PART * areas.max())))
    # What is not connected with the outside, around the border, is a hole.
    outside = np.pad(~garment, 1, constant_values=True).astype(np.uint8)
    count, holes, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    for hole in range(1, count):
        is_opening = label in _OPEN_CLASSES and stats[hole, cv2.CC_STAT_AREA] >= _MIN_OPENING
        if hole != holes[0, 0] and not is_opening:
            garment |= (holes == hole)[1:-1, 1:-1]
    return garment


def _enlarging_matrix() -> np.ndarray:
    """Return the matrix that enlarges 28 values to ``28 * _FINE``, by Catmull-Rom's cubic."""
    # All weights are multiples of 2**-10: sums of products with whole numbers are exact, in
    # whatever order a machine adds them.
    place = (np.arange(SIZE * _FINE) + 0.5) / _FINE - 0.5
    matrix = np.zeros((len(place), SIZE))
    for offset in (-1, 0, 1, 2):
        column = np.floor(place).astype(int) + offset
        away = np.abs(place - column)
        near = (1.5 * away - 2.5) * away**2 + 1
        far = ((-0.5 * away + 2.5) * away - 4) * away + 2
        weight = np.where(away <= 1, near, far)
        inside = (column >= 0) & (column < SIZE)
        matrix[np.flatnonzero(inside), column[inside]] += weight[inside]
    return matrix


_ENLARGE = _enlarging_matrix()


def _enlarge(photograph: np.ndarray, garment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Enlarge a garment without a fringe of the photograph's background.

    Returns:
        Grey values from 0 to 1 and whether the garment is there, both ``28 * _FINE`` wide.
    """
    # In the pixels at its border the garment is mixed with the background: they take the value of
    # their lightest neighbour.
    weight = garment.astype(np.uint8)
    is_border = weight > cv2.erode(weight, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    lightest = cv2.dilate(photograph, np.ones((3, 3), np.uint8))
    cleaned = np.where(is_border, lightest, photograph) * weight
    weight = _ENLARGE @ weight.astype(np.float64) @ _ENLARGE.T
    values = _ENLARGE @ cleaned.astype(np.float64) @ _ENLARGE.T
    inside = weight >= 0.5
    grey = np.where(inside, values / np.where(inside, 255 * weight, 1), 0.0)
    return np.clip(grey, 0, 1), inside


def _place(
    grey: np.ndarray,
    inside: np.ndarray,
    size: int,
    width: float,
    centre: tuple[float, float],
    angle: float,
    is_mirrored: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Put an enlarged garment into an image.

    Args:
        grey: Grey values from 0 to 1.
        inside: Whether the garment is there, of the same shape.
        size: Height and width of the image in pixels.
        width: Width of the whole photograph in the image, in pixels.
        centre: x and y of the photograph's centre, in pixels.
        angle: Angle by which it is turned.
        is_mirrored: Whether left and right are exchanged.

    Returns:
        Grey values, (size, size), and whether at least half of a pixel is the garment's.
    """
    parts = _PARTS
    reach = 0.5 * np.sqrt(2) * width
    left, top = (max(0, int(np.floor(at - reach))) for at in centre)
    right, bottom = (min(size, int(np.ceil(at + reach))) for at in centre)
    x = (np.arange(left * parts, right * parts) + 0.5) / parts - centre[0]
    y = ((np.arange(top * parts, bottom * parts) + 0.5) / parts - centre[1])[:, None]
    column = (x * np.cos(angle) + y * np.sin(angle)) * (-1 if is_mirrored else 1)
    row = y * np.cos(angle) - x * np.sin(angle)
    fine = len(grey)
    column = np.floor((column / width + 0.5) * fine).astype(int)
    row = np.floor((row / width + 0.5) * fine).astype(int)
    there = (column >= 0) & (column < fine) & (row >= 0) & (row < fine)
    column, row = np.where(there, column, 0), np.where(there, row, 0)
    there &= inside[row, column]

    def pixels(values: np.ndarray) -> np.ndarray:
        return values.reshape(bottom - top, parts, right - left, parts).sum(axis=(1, 3))

    count = pixels(there.astype(np.float64))
    total = pixels(np.where(there, grey[row, column], 0.0))
    shade, stencil = np.zeros((size, size)), np.zeros((size, size), dtype=bool)
    window = np.s_[top:bottom, left:right]
    stencil[window] = count >= parts**2 / 2
    shade[window] = total / np.maximum(count, 1)
    return shade, stencil


def _dye(rng: np.random.Generator, shade: np.ndarray) -> np.ndarray:
    """Colour grey values from 0 to 1, (H, W): (H, W, 3) uint8 from a dark to a light colour."""
    hue, is_grey = rng.uniform(), rng.uniform() < _GREY_SHARE
    strength, other = rng.uniform(0.15, 0.75), rng.uniform(-0.08, 0.08)
    light, dark = rng.uniform(0.8, 1.0), rng.uniform(0.02, 0.3)
    if is_grey:
        strength = 0.0
    high = np.array(colorsys.hsv_to_rgb(hue, strength, light))
    low = np.array(colorsys.hsv_to_rgb((hue + other) % 1.0, min(1.0, 1.5 * strength), dark))
    colours = low + shade[..., None] * (high - low)
    return np.clip(np.rint(255 * colours), 0, 255).astype(np.uint8)


def draw_scene(rng: np.random.Generator, size: int, wardrobe: Wardrobe) -> Scene:
    """Draw 3 to 7 overlapping garments, of any class each, 1/4 to 1/2 as large as the image.

    Those that are mostly hidden are left out.

    Args:
        rng: Source of all random numbers.
        size: Height and width of the image in pixels.
        wardrobe: The photographs to take garments from.
    """
    labels = rng.integers(len(CLASSES), size=rng.integers(_FEWEST, _MOST + 1)).tolist()
    shades, stencils = [], []
    for label in labels:
        photograph = wardrobe.images[rng.choice(wardrobe.by_class[label])]
        garment = _enlarge(photograph, silhouette(photograph, label))
        # Uniform on a log scale: small garments are as frequent as large ones.
        width = size * float(np.exp(rng.uniform(np.log(_SMALLEST), np.log(_LARGEST))))
        x, y = rng.uniform(0.35 * width, size - 0.35 * width, size=2)
        angle, is_mirrored = rng.uniform(-_MAX_TILT, _MAX_TILT), rng.uniform() < 0.5
        shade, stencil = _place(*garment, size, width, (x, y), angle, is_mirrored)
        shades.append(shade)
        stencils.append(stencil)
    owner, kept = stack(stencils)
    image = surface(rng, size, rng.uniform(), is_background=True)
    for position, index in enumerate(kept):
        visible = owner == position
        image[visible] = _dye(rng, shades[index])[visible]
    return Scene(image, owner, tuple(labels[index] for index in kept))
