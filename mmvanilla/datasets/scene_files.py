"""Write the files of a drawn data set, in the layouts of COCO, ADE20K and ImageNet.

All layouts lie below one root, each in a folder of its own::

    coco/{train,val}/000000.png                    RGB images
    coco/annotations/instances_{train,val}.json    COCO instances
    ade20k/images/{training,validation}/000000.png RGB images, the same scenes as in coco/
    ade20k/annotations/{training,validation}/000000.png  label maps, one uint8 channel
    imagenet/{train,val}/CLASS/000000.png          RGB images of one dominant object
    {coco,ade20k,imagenet}/recipe.json             what the layout was made from

**coco**: the categories are the data set's scene classes, with ids from 1. Later objects hide
earlier ones; a mask holds exactly the visible pixels of its object, as uncompressed RLE
(column-major run lengths), which needs no pycocotools to write and which pycocotools and
MMDetection read as it is. ``bbox`` is the tight [x, y, width, height] of the mask, ``area`` its
pixels, ``iscrowd`` 0.

**ade20k**: label 0 is void, as in ADE20K, and never occurs; 1 is the background, ``2 + c`` the
scene class c. MMSegmentation's ``BaseSegDataset`` reads it with ``img_suffix='.png'``,
``reduce_zero_label=True`` and classes that begin with the background; its ``ADE20KDataset`` takes
no other classes than its own 150.

**imagenet**: image i shows portrait class ``i % number of classes``, so that the classes are
balanced.

Image i of a split depends only on the seed, the split and i, so a larger data set begins with the
smaller one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mmvanilla.datasets.scenes import Scene, coco_annotations, label_map

RECIPE_NAME = "recipe.json"
SPLITS = ("train", "val")
_ADE20K_SPLITS = {"train": "training", "val": "validation"}
SCENE_STREAM, PORTRAIT_STREAM = 0, 1


@dataclass(frozen=True)
class DrawnDataSet:
    """What is drawn: everything in which one drawn data set differs from another.

    Attributes:
        name: Name of the data set, for the COCO annotations.
        tool: Name of the tool that makes it, for messages.
        version: Version of pixels and files, which recipes record.
        supercategory: What all its COCO categories are.
        scene_classes: Classes of the coco and the ade20k layout.
        draw_scene: Function of a random generator, the size of an image in pixels and the name of
            the split, which draws a scene.
        portrait_classes: Classes of the imagenet layout; empty if there is none.
        draw_portrait: Function of a random generator, the size of an image in pixels and an index
            of ``portrait_classes``, which draws one large object of this class.
        source: Entries of a recipe that say what the images are made from, if not from numbers
            alone: ``data_set``, which tells the recipe from those of other data sets, and more.
        options: Options of the tool that a command needs for the same source.
    """

    name: str
    tool: str
    version: int
    supercategory: str
    scene_classes: tuple[str, ...]
    draw_scene: Callable[[np.random.Generator, int, str], Scene]
    portrait_classes: tuple[str, ...] = ()
    draw_portrait: Callable[[np.random.Generator, int, int], Scene] | None = None
    source: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    @property
    def layouts(self) -> tuple[str, ...]:
        """Names of the layouts that this data set has."""
        return ("coco", "ade20k", "imagenet") if self.draw_portrait else ("coco", "ade20k")


@dataclass(frozen=True)
class Task:
    """One image to make."""

    stream: int  # SCENE_STREAM (coco and ade20k) or PORTRAIT_STREAM (imagenet)
    split: str
    index: int


class Writer:
    """Writes the files of some layouts into a folder, image by image.

    Args:
        data_set: What to draw.
        folder: Folder of the layouts, which must not have them yet.
        layouts: Names of the layouts to write.
        image_size: Height and width of an image in pixels.
        seed: Seed of all random numbers.
    """

    def __init__(
        self,
        data_set: DrawnDataSet,
        folder: Path,
        layouts: Sequence[str],
        image_size: int,
        seed: int,
    ) -> None:
        self.data_set, self.folder, self.layouts = data_set, folder, layouts
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
            "imagenet": [f"{split}/{name}" for split in SPLITS for name in self._portraits],
        }
        for layout in layouts:
            for subfolder in subfolders[layout]:
                (folder / layout / subfolder).mkdir(parents=True)

    @property
    def _portraits(self) -> tuple[str, ...]:
        return self.data_set.portrait_classes

    def write(self, task: Task) -> None:
        """Draw one image and write its files; COCO annotations are kept for :meth:`finish`."""
        rng = np.random.default_rng([self.seed, SPLITS.index(task.split), task.stream, task.index])
        name = f"{task.index:06d}.png"
        if task.stream == PORTRAIT_STREAM:
            assert self.data_set.draw_portrait is not None
            label = task.index % len(self._portraits)
            portrait = self.data_set.draw_portrait(rng, self.image_size, label)
            path = self.folder / "imagenet" / task.split / self._portraits[label] / name
            path.write_bytes(_encode_png(portrait.image))
            return
        scene = self.data_set.draw_scene(rng, self.image_size, task.split)
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

    def finish(self, recipes: Mapping[str, dict]) -> None:
        """Write what is known only after the last image: COCO annotations and recipes.

        Args:
            recipes: The settings that each layout was made from, by the layout's name.
        """
        about = self.data_set
        if "coco" in self.layouts:
            for split in SPLITS:
                content = {
                    "info": {
                        "description": f"mmvanilla {about.name}",
                        "version": str(about.version),
                    },
                    "licenses": [],
                    "categories": [
                        {"id": label + 1, "name": name, "supercategory": about.supercategory}
                        for label, name in enumerate(about.scene_classes)
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
