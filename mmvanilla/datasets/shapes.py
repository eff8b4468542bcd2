"""A small made-up data set: coloured shapes on textured backgrounds, with exact masks.

It stands in for COCO, ADE20K and ImageNet wherever a download would be out of place: demos, tests,
CI. All files below one root; each layout is a folder of its own and can be made alone::

    coco/{train,val}/000000.png                    RGB images
    coco/annotations/instances_{train,val}.json    COCO instances
    ade20k/images/{training,validation}/000000.png RGB images, the same scenes as in coco/
    ade20k/annotations/{training,validation}/000000.png  label maps, one uint8 channel
    imagenet/{train,val}/CLASS/000000.png          RGB images of one dominant shape
    {coco,ade20k,imagenet}/recipe.json             what the layout was made from

**coco**: 1 to 5 shapes an image, ``SCENE_CLASSES``, category ids from 1. Later shapes hide earlier
ones; a mask holds exactly the visible pixels of its shape, as uncompressed RLE (column-major run
lengths), which needs no pycocotools to write and which pycocotools and MMDetection read as it is.
``bbox`` is the tight [x, y, width, height] of the mask, ``area`` its pixels, ``iscrowd`` 0.

**ade20k**: label 0 is void, as in ADE20K, and never occurs; 1 is the background, ``2 + c`` the
scene class c. MMSegmentation's ``BaseSegDataset`` reads it with ``img_suffix='.png'``,
``reduce_zero_label=True`` and ``metainfo=dict(classes=SEG_CLASSES, palette=SEG_PALETTE)``; its
``ADE20KDataset`` takes no other classes than its own 150.

**imagenet**: one large shape an image, among small distractors of other classes. Image i shows
class ``i % len(CLASSES)``, so that the counts are even; readers number the folders by name, which
is the order of ``sorted(CLASSES)``.

Image i of a split depends on the seed, the split and i alone: a larger set begins with the smaller.
PNG is lossless: the same seed gives the same pixels anywhere, and the same bytes as long as the
same OpenCV compresses them. Only numpy and OpenCV are needed here, no torch.
"""

from __future__ import annotations

import contextlib
import json
import operator
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmvanilla.datasets.shapes_drawing import (
    CLASSES,
    PALETTE,
    SCENE_CLASSES,
    Scene,
    coco_annotations,
    draw_portrait,
    draw_scene,
    label_map,
)
from mmvanilla.utils.paths import tool_command
from mmvanilla.utils.scratch import scratch_folder

SCENE_PALETTE: tuple[tuple[int, int, int], ...] = PALETTE[: len(SCENE_CLASSES)]
SEG_CLASSES: tuple[str, ...] = ("background", *SCENE_CLASSES)
"""The classes of the ade20k layout, label 0 reduced away."""
SEG_PALETTE: tuple[tuple[int, int, int], ...] = ((128, 128, 128), *SCENE_PALETTE)

LAYOUTS: tuple[str, ...] = ("coco", "ade20k", "imagenet")
MIN_IMAGE_SIZE = 32
MAX_IMAGE_SIZE = 4096  # drawing one takes about 100 bytes of memory a pixel: here 1.6 GB
_BYTES_PER_PIXEL = 1.5  # of a PNG file; small images take more
_RECIPE_VERSION = 2  # raise it with every change to the pixels or files
_RECIPE_NAME = "recipe.json"
_SPLITS = ("train", "val")
_ADE20K_SPLITS = {"train": "training", "val": "validation"}
_SCENE_STREAM, _PORTRAIT_STREAM = 0, 1


@dataclass(frozen=True)
class _Task:
    """One image to make."""

    stream: int  # a scene for coco and ade20k, or a portrait for imagenet
    split: str
    index: int


Progress = Callable[[Sequence[_Task]], Iterable[_Task]]


class _Writer:
    """Writes the files of the wanted layouts below a folder, image by image."""

    def __init__(self, folder: Path, layouts: Sequence[str], image_size: int, seed: int) -> None:
        self.folder, self.layouts = folder, layouts
        self.image_size, self.seed = image_size, seed
        self.coco: dict[str, dict[str, list]] = {
            split: {"images": [], "annotations": []} for split in _SPLITS
        }
        # All folders at once: a class that has no image yet must still be numbered by readers.
        subfolders = {
            "coco": ["annotations", *_SPLITS],
            "ade20k": [
                f"{kind}/{split}"
                for kind in ("images", "annotations")
                for split in _ADE20K_SPLITS.values()
            ],
            "imagenet": [f"{split}/{name}" for split in _SPLITS for name in CLASSES],
        }
        for layout in layouts:
            for subfolder in subfolders[layout]:
                (folder / layout / subfolder).mkdir(parents=True)

    def write(self, task: _Task) -> None:
        rng = np.random.default_rng([self.seed, _SPLITS.index(task.split), task.stream, task.index])
        name = f"{task.index:06d}.png"
        if task.stream == _PORTRAIT_STREAM:
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

    def _add_to_coco(self, scene: Scene, task: _Task, name: str) -> None:
        height, width = scene.owner.shape
        record = self.coco[task.split]
        image_id = task.index + 1
        record["images"].append(
            {"id": image_id, "file_name": name, "height": height, "width": width}
        )
        first_id = len(record["annotations"]) + 1
        record["annotations"] += coco_annotations(scene, image_id, first_id)

    def finish(self, recipes: dict[str, dict]) -> None:
        if "coco" in self.layouts:
            for split in _SPLITS:
                content = {
                    "info": {"description": "mmvanilla shapes", "version": str(_RECIPE_VERSION)},
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
            (self.folder / layout / _RECIPE_NAME).write_text(text, encoding="utf-8")


def _encode_png(pixels: np.ndarray) -> bytes:
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, buffer = cv2.imencode(".png", pixels)
    if not done:
        raise RuntimeError(f"OpenCV {cv2.__version__} could not compress a PNG image")
    return buffer.tobytes()


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
    """Write the data set below ``root``, in the formats that this module's docstring gives.

    A layout that is there already, made from the same arguments, is left as it is. All others are
    first written aside, inside ``root``, then renamed: no failure leaves a part of one behind.

    Args:
        root: Folder of the layouts; made if missing.
        layouts: Which of ``LAYOUTS`` to make.
        num_train: Number of training images, at least 1.
        num_val: Number of validation images, at least 1.
        image_size: Height and width in pixels, from 32 to 4096.
        seed: Seed of all random numbers, at least 0.
        progress: Wraps the list of images to make and yields each in turn, as
            ``mmengine.utils.track_iter_progress`` does.
        overwrite: Replace layouts that were made from other arguments. A folder that was not made
            here is never replaced.

    Returns:
        The layouts that were written; empty if all were there.

    Raises:
        TypeError: A number is not a whole number, or ``layouts`` not a sequence of names.
        ValueError: A number or a layout is out of range, or a layout exists and may not be
            replaced.
        OSError: The folder cannot be written, or the disk has no room for the images.
    """
    root = Path(root)
    layouts = _check_layouts(layouts)
    numbers = {
        "num_train": _check_number("num_train", num_train, 1),
        "num_val": _check_number("num_val", num_val, 1),
        "image_size": _check_number("image_size", image_size, MIN_IMAGE_SIZE, MAX_IMAGE_SIZE),
        "seed": _check_number("seed", seed, 0),
    }
    recipes = {
        layout: {"layout": layout, "version": _RECIPE_VERSION, **numbers} for layout in layouts
    }
    missing = [
        layout for layout in layouts if not _is_made(root / layout, recipes[layout], overwrite)
    ]
    if not missing:
        return ()
    _check_room(root, len(missing) * (numbers["num_train"] + numbers["num_val"]), image_size)

    streams = [_SCENE_STREAM] if {"coco", "ade20k"} & set(missing) else []
    streams += [_PORTRAIT_STREAM] if "imagenet" in missing else []
    tasks = [
        _Task(stream, split, index)
        for stream in streams
        for split, count in zip(_SPLITS, (numbers["num_train"], numbers["num_val"]), strict=True)
        for index in range(count)
    ]
    new_folders = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with scratch_folder(root, "making") as aside:
            writer = _Writer(aside, missing, numbers["image_size"], numbers["seed"])
            for task in progress(tasks) if progress else tasks:
                try:
                    writer.write(task)
                except MemoryError:
                    raise RuntimeError(
                        f"not enough memory to draw {image_size}x{image_size} pixels: choose a "
                        "smaller image_size"
                    ) from None
            writer.finish(recipes)
            for layout in missing:
                _move_in(aside / layout, root / layout, recipes[layout], overwrite)
    except BaseException:
        for folder in new_folders:
            with contextlib.suppress(OSError):  # not made yet, or others wrote there meanwhile
                folder.rmdir()
        raise
    return tuple(missing)


def _check_layouts(layouts: Sequence[str]) -> tuple[str, ...]:
    if isinstance(layouts, str):
        raise TypeError(f"layouts is the text {layouts!r}, expected a sequence: [{layouts!r}]")
    for layout in layouts:
        if layout not in LAYOUTS:
            raise ValueError(f"unknown layout {layout!r}, expected any of: {', '.join(LAYOUTS)}")
    if not layouts:
        raise ValueError(f"no layout was named, expected any of: {', '.join(LAYOUTS)}")
    return tuple(layout for layout in LAYOUTS if layout in layouts)


def _check_number(name: str, value: int, least: int, most: int | None = None) -> int:
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected a whole number") from None
    if value < least:
        raise ValueError(f"{name} is {value}, expected at least {least}")
    if most is not None and value > most:
        raise ValueError(
            f"{name} is {value}, expected at most {most}: a larger image takes too much memory to "
            "draw"
        )
    return value


def _check_room(root: Path, count: int, image_size: int) -> None:
    """Refuse what the disk has no room for, before anything is drawn."""
    there = next(folder for folder in (root, *root.resolve().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    needed = count * image_size**2 * _BYTES_PER_PIXEL
    if needed > free:
        raise OSError(
            f"{count} images of {image_size}x{image_size} take about {needed / 1e9:.1f} GB, and "
            f"{root} has {free / 1e9:.1f} GB free: make fewer or smaller images, or choose another "
            "folder"
        )


def _is_made(target: Path, recipe: dict, overwrite: bool) -> bool:
    """Tell whether the layout is there as wanted; False if it has to be written."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    try:
        found = json.loads((target / _RECIPE_NAME).read_text(encoding="utf-8"))
        ours = isinstance(found, dict) and found.get("layout") == recipe["layout"]
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise ValueError(
            f"{target} exists and was not made by make_shapes (it has no {_RECIPE_NAME} of it), "
            "so it is left alone: choose another folder"
        )
    if found == recipe:
        return True
    if overwrite:
        return False
    keys = [key for key in recipe if found.get(key) != recipe[key]]
    options = [f"--{key.replace('_', '-')} {recipe[key]}" for key in keys if key != "version"]
    command = " ".join(
        [tool_command("make_shapes"), str(target.parent), f"--layouts {target.name}", *options]
    )
    raise ValueError(
        f"{target} was made with {', '.join(f'{key}={found.get(key)}' for key in keys)}, but "
        f"{', '.join(f'{key}={recipe[key]}' for key in keys)} is wanted: choose another folder, "
        f"or replace it by `{command} --overwrite` (overwrite=True)"
    )


def _move_in(new: Path, target: Path, recipe: dict, overwrite: bool) -> None:
    """Put a finished layout in its place; what it replaces goes when the folder aside goes."""
    if _is_made(target, recipe, overwrite):
        return  # another process was faster
    old = new.with_name(f"old-{new.name}")
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
