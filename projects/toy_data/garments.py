"""A data set of real garments on textured backgrounds, with exact masks.

The garments are cut out of the photographs of Fashion-MNIST by their own silhouettes, then
enlarged, turned, dyed or left grey, and laid over each other: detection and segmentation with real
textures and ten classes, without annotating anything. Training scenes show garments of the
training photographs only, validation scenes those of the test photographs.

It has the layouts coco and ade20k that :mod:`mmvanilla.datasets.layouts` describes, with up to
7 garments in each image. The same seed and the same photographs give the same pixels on every
machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmvanilla.datasets.layouts import Scenes, draw_splits, make_layouts, write_ade20k, write_coco
from mmvanilla.datasets.scenes import Scene
from projects.toy_data.fashion_mnist import CLASSES, find_folder, read_photographs
from projects.toy_data.garments_drawing import Wardrobe, draw_scene

LAYOUTS: tuple[str, ...] = ("coco", "ade20k")
RECIPE_VERSION = 1  # increase it with every change to the pixels
_PHOTOGRAPHS = {"train": "train", "val": "test"}  # which photographs each split's garments are from


def make_garments(
    root: str | Path,
    layouts: Sequence[str] = LAYOUTS,
    num_train: int = 4000,
    num_val: int = 300,
    image_size: int = 96,
    seed: int = 0,
    source: str | Path | None = None,
) -> tuple[str, ...]:
    """Write the data set below ``root``.

    Args:
        root: Folder of the layouts; it is created if it does not exist.
        layouts: Names of the layouts to make, from ``LAYOUTS``.
        num_train: Number of training images.
        num_val: Number of validation images.
        image_size: Height and width in pixels, at least 64.
        seed: The same seed gives the same images.
        source: Folder of Fashion-MNIST's four files. None: ``data/fashion_mnist`` if that is
            there, else the folder of Debian's package dataset-fashion-mnist.

    Returns:
        Names of the layouts that were written; those that were made from the same arguments and
        photographs before are left as they are.

    Raises:
        ValueError: A number is out of range, a layout is unknown, its folder holds other files, or
            a file of Fashion-MNIST is damaged.
        FileNotFoundError: Fashion-MNIST is not there.
    """
    if image_size < 64:
        raise ValueError(f"image_size is {image_size}, expected at least 64: garments need room")
    numbers = {"num_train": num_train, "num_val": num_val, "image_size": image_size, "seed": seed}
    folder = find_folder(source)
    photographs = {split: read_photographs(folder, kind) for split, kind in _PHOTOGRAPHS.items()}
    wardrobes = {
        split: Wardrobe.of(photographs[split], kind) for split, kind in _PHOTOGRAPHS.items()
    }

    def draw(rng: np.random.Generator, split: str, index: int) -> Scene:
        return draw_scene(rng, image_size, wardrobes[split])

    def scenes() -> Scenes:
        return draw_splits(draw, numbers)

    writers = {
        "coco": lambda folder: write_coco(folder, scenes(), CLASSES, "garment"),
        "ade20k": lambda folder: write_ade20k(folder, scenes()),
    }
    digests = {f"{split}_photographs": photographs[split].digest[:16] for split in _PHOTOGRAPHS}
    recipe = {"version": RECIPE_VERSION, "data_set": "garments", **digests, **numbers}
    return make_layouts(root, layouts, writers, recipe)
