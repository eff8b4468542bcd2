"""A data set of real garments on textured backgrounds, with exact masks.

The garments are cut out of the photographs of Fashion-MNIST by their own silhouettes, then
enlarged, turned, dyed or left grey, and laid over each other: detection and segmentation with real
textures and ten classes, without annotating anything. Training scenes show garments of the
training photographs only, validation scenes those of the test photographs.

It has the layouts coco and ade20k that :mod:`mmvanilla.datasets.scene_files` describes, with up to
7 garments in each image. PNG is lossless: the same seed and the same photographs give the same
pixels on every machine, and the same bytes as long as the same version of OpenCV compresses them.
The module needs numpy and OpenCV, but not torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmvanilla.datasets.fashion_mnist import CLASSES, find_folder, read_photographs
from mmvanilla.datasets.garments_drawing import Wardrobe, draw_scene
from mmvanilla.datasets.making import Progress, check_arguments, make_layouts
from mmvanilla.datasets.scene_files import DrawnDataSet
from mmvanilla.datasets.scenes import Scene

PALETTE: tuple[tuple[int, int, int], ...] = (
    (220, 20, 60),
    (0, 114, 189),
    (60, 179, 75),
    (237, 177, 32),
    (126, 47, 142),
    (77, 190, 238),
    (245, 130, 48),
    (154, 99, 36),
    (240, 50, 230),
    (70, 153, 144),
)
"""An RGB colour for each of ``CLASSES``, to draw predictions with."""
SEG_CLASSES: tuple[str, ...] = ("background", *CLASSES)
"""The classes of the ade20k layout without label 0, which ``reduce_zero_label`` removes."""
SEG_PALETTE: tuple[tuple[int, int, int], ...] = ((128, 128, 128), *PALETTE)

LAYOUTS: tuple[str, ...] = ("coco", "ade20k")
MIN_IMAGE_SIZE = 64
RECIPE_VERSION = 1  # increase it with every change to the pixels or the files
_PHOTOGRAPHS = {"train": "train", "val": "test"}  # which photographs each split's garments are from


def make_garments(
    root: str | Path,
    layouts: Sequence[str] = LAYOUTS,
    num_train: int = 4000,
    num_val: int = 300,
    image_size: int = 96,
    seed: int = 0,
    source: str | Path | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write the data set below ``root``, in the layouts that this module's docstring names.

    A layout that was already made from the same arguments and photographs is left as it is. All
    others are first written to a scratch folder inside ``root``, then renamed, so that a failure
    never leaves an incomplete layout behind.

    Args:
        root: Folder of the layouts; it is created if it does not exist.
        layouts: Names of the layouts to make, from ``LAYOUTS``.
        num_train: Number of training images, at least 1.
        num_val: Number of validation images, at least 1.
        image_size: Height and width in pixels, from 64 to 4096.
        seed: Seed of all random numbers, at least 0.
        source: Folder of Fashion-MNIST's four files. None: ``data/fashion_mnist`` if that is
            there, else the folder of Debian's package dataset-fashion-mnist.
        progress: Function that wraps the list of images to make and yields each of them, as
            ``mmengine.utils.track_iter_progress`` does. None: no progress is shown.
        overwrite: Whether to replace layouts that were made from other arguments. A folder that
            this function did not make is never replaced. Default: False.

    Returns:
        Names of the layouts that were written; empty if all of them existed already.

    Raises:
        TypeError: A number is not a whole number, or ``layouts`` not a sequence of names.
        ValueError: A number is out of range, a layout is unknown, a layout exists and may not be
            replaced, or a file of Fashion-MNIST is damaged.
        FileNotFoundError: Fashion-MNIST is not there.
        OSError: The folder cannot be written, or the disk has no room for the images.
    """
    chosen, numbers = check_arguments(
        LAYOUTS, layouts, num_train, num_val, image_size, seed, MIN_IMAGE_SIZE
    )
    folder = find_folder(source)
    photographs = {split: read_photographs(folder, kind) for split, kind in _PHOTOGRAPHS.items()}
    wardrobes = {
        split: Wardrobe.of(photographs[split], kind) for split, kind in _PHOTOGRAPHS.items()
    }

    def draw(rng: np.random.Generator, size: int, split: str) -> Scene:
        return draw_scene(rng, size, wardrobes[split])

    data_set = DrawnDataSet(
        name="garments",
        tool="make_garments",
        version=RECIPE_VERSION,
        supercategory="garment",
        scene_classes=CLASSES,
        draw_scene=draw,
        source={
            "data_set": "garments",
            **{f"{split}_photographs": photographs[split].digest[:16] for split in _PHOTOGRAPHS},
        },
        options=() if source is None else ("--source", str(source)),
    )
    return make_layouts(data_set, root, chosen, numbers, progress, overwrite)
