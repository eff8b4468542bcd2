"""Write the files of the data set of coloured shapes, in each of its layouts.

:mod:`mmvanilla.datasets.shapes` describes the layouts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmvanilla.datasets.shapes_drawing import (
    CLASSES,
    SCENE_CLASSES,
    Scene,
    coco_annotations,
    draw_portrait,
    draw_scene,
    label_map,
)

RECIPE_VERSION = 2  # increase it with every change to the pixels or the files
RECIPE_NAME = "recipe.json"
SPLITS = ("train", "val")
_ADE20K_SPLITS = {"train": "training", "val": "validation"}
SCENE_STREAM, PORTRAIT_STREAM = 0, 1


@dataclass(frozen=True)
class Task:
    """One image to make."""

    stream: int  # SCENE_STREAM (coco and ade20k) or PORTRAIT_STREAM (imagenet)
    split: str
    index: int


class Writer:
    """Writes the files of some layouts into a folder, image by image.

    Args:
        folder: Folder of the layouts, which must not have them yet.
        layouts: Names of the layouts to write.
        image_size: Height and width of an image in pixels.
        seed: Seed of all random numbers.
    """

    def __init__(self, folder: Path, layouts: Sequence[str], image_size: int, seed: int) -> None:
        self.folder, self.layouts = folder, layouts
        self.image_size, self.seed = image_size, seed
        self.coco: dict[str, dict[str, list]] = {
            split: {"images": [], "annotations": []} for split in SPLITS
        }
        # All folders are created first: readers number the classes by their folders, so that a
        # class without images needs its folder, too.
        subfolders = {
            "coco": ["annotations", *SPLITS],
            "ade20k": [
                f"{kind}/{split}"
                for kind in ("images", "annotations")
                for split in _ADE20K_SPLITS.values()
            ],
            "imagenet": [f"{split}/{name}" for split in SPLITS for name in CLASSES],
        }
        for layout in layouts:
            for subfolder in subfolders[layout]:
                (folder / layout / subfolder).mkdir(parents=True)

    def write(self, task: Task) -> None:
        """Draw one image and write its files; COCO annotations are kept for :meth:`finish`."""
        rng = np.random.default_rng([self.seed, SPLITS.index(task.split), task.stream, task.index])
        name = f"{task.index:06d}.png"
        if task.stream == PORTRAIT_STREAM:
            label = task.index % len(CLASSES)
            portrait = draw_portrait(rng, self.image_size, label)
            path = self.folder / "imagenet" / task.split / CLASSES[label] / name
            path.write_bytes(_encode_png(portrait.image))
            return
        scene = draw_scene(rng, self.image_size)
        png = _encode_png(scene.image)
        if "coco" in self.layouts:
            (self.folder / "coco" / task.split / name).write_bytes(png)
            self._add_to_coco(scene, task, name)
        if "ade20k" in self.layouts:
            split = _ADE20K_SPLITS[task.split]
            (self.folder / "ade20k" / "images" / split / name).write_bytes(png)
            labels = _encode_png(label_map(scene))
            (self.folder / "ade20k" / "annotations" / split / name).write_bytes(labels)

    def _add_to_coco(self, scene: Scene, task: Task, name: str) -> None:
        height, width = scene.owner.shape
        record = self.coco[task.split]
        image_id = task.index + 1
        record["images"].append(
            {"id": image_id, "file_name": name, "height": height, "width": width}
        )
        first_id = len(record["annotations"]) + 1
        record["annotations"] += coco_annotations(scene, image_id, first_id)

    def finish(self, recipes: dict[str, dict]) -> None:
        """Write what is known only after the last image: COCO annotations and recipes.

        Args:
            recipes: The settings that each layout was made from, by the layout's name.
        """
        if "coco" in self.layouts:
            for split in SPLITS:
                content = {
                    "info": {"description": "mmvanilla shapes", "version": str(RECIPE_VERSION)},
                    "licenses": [],
                    "categories": [
                        {"id": label + 1, "name": name, "supercategory": "shape"}
                        for label, name in enumerate(SCENE_CLASSES)
                    ],
                    **self.coco[split],
                }
                path = self.folder / "coco" / "annotations" / f"instances_{split}.json"
                path.write_text(json.dumps(content), encoding="utf-8")
        for layout in self.layouts:
            text = json.dumps(recipes[layout], indent=2) + "\n"
            (self.folder / layout / RECIPE_NAME).write_text(text, encoding="utf-8")


def _encode_png(pixels: np.ndarray) -> bytes:
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, buffer = cv2.imencode(".png", pixels)
    if not done:
        raise RuntimeError(f"OpenCV {cv2.__version__} could not compress a PNG image")
    return buffer.tobytes()
