"""A small made-up data set: coloured shapes on textured backgrounds, with exact masks.

It stands in for COCO, ADE20K and ImageNet wherever a download would be out of place: demos, tests,
CI. It has the layouts that :mod:`mmvanilla.datasets.scene_files` describes:

- coco and ade20k: 1 to 5 shapes in each image; the classes are ``SCENE_CLASSES``, and with the
  background ``SEG_CLASSES``.
- imagenet: one large shape in each image, among small distractors of other classes. Readers number
  the folders by name, which is the order of ``sorted(CLASSES)``.

PNG is lossless: the same seed gives the same pixels on every machine, and the same bytes as long as
the same version of OpenCV compresses them. The module needs numpy and OpenCV, but not torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmvanilla.datasets.making import Progress, check_arguments, make_layouts
from mmvanilla.datasets.scene_files import DrawnDataSet
from mmvanilla.datasets.shapes_drawing import (
    CLASSES,
    PALETTE,
    SCENE_CLASSES,
    draw_portrait,
    draw_scene,
)

SCENE_PALETTE: tuple[tuple[int, int, int], ...] = PALETTE[: len(SCENE_CLASSES)]
SEG_CLASSES: tuple[str, ...] = ("background", *SCENE_CLASSES)
"""The classes of the ade20k layout without label 0, which ``reduce_zero_label`` removes."""
SEG_PALETTE: tuple[tuple[int, int, int], ...] = ((128, 128, 128), *SCENE_PALETTE)

LAYOUTS: tuple[str, ...] = ("coco", "ade20k", "imagenet")
MIN_IMAGE_SIZE = 32
RECIPE_VERSION = 2  # increase it with every change to the pixels or the files


def make_shapes(
    root: str | Path,
    layouts: Sequence[str] = LAYOUTS,
    num_train: int = 1200,
    num_val: int = 100,
    image_size: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write the data set below ``root``, in the layouts that this module's docstring names.

    A layout that was already made from the same arguments is left as it is. All others are first
    written to a scratch folder inside ``root``, then renamed, so that a failure never leaves an
    incomplete layout behind.

    Args:
        root: Folder of the layouts; it is created if it does not exist.
        layouts: Names of the layouts to make, from ``LAYOUTS``.
        num_train: Number of training images, at least 1.
        num_val: Number of validation images, at least 1.
        image_size: Height and width in pixels, from 32 to 4096.
        seed: Seed of all random numbers, at least 0.
        progress: Function that wraps the list of images to make and yields each of them, as
            ``mmengine.utils.track_iter_progress`` does. None: no progress is shown.
        overwrite: Whether to replace layouts that were made from other arguments. A folder that
            this function did not make is never replaced. Default: False.

    Returns:
        Names of the layouts that were written; empty if all of them existed already.

    Raises:
        TypeError: A number is not a whole number, or ``layouts`` not a sequence of names.
        ValueError: A number is out of range, a layout is unknown, or a layout exists and may not be
            replaced.
        OSError: The folder cannot be written, or the disk has no room for the images.
    """
    chosen, numbers = check_arguments(
        LAYOUTS, layouts, num_train, num_val, image_size, seed, MIN_IMAGE_SIZE
    )
    data_set = DrawnDataSet(
        name="shapes",
        tool="make_shapes",
        version=RECIPE_VERSION,
        supercategory="shape",
        scene_classes=SCENE_CLASSES,
        draw_scene=lambda rng, size, split: draw_scene(rng, size),
        portrait_classes=CLASSES,
        draw_portrait=draw_portrait,
    )
    return make_layouts(data_set, root, chosen, numbers, progress, overwrite)
