"""A small made-up data set: coloured shapes on textured backgrounds, with exact masks.

It stands in for COCO, ADE20K and ImageNet wherever a download would be out of place: demos, tests,
CI. All files lie below one root; each layout is a folder of its own and can be made alone::

    coco/{train,val}/000000.png                    RGB images
    coco/annotations/instances_{train,val}.json    COCO instances
    ade20k/images/{training,validation}/000000.png RGB images, the same scenes as in coco/
    ade20k/annotations/{training,validation}/000000.png  label maps, one uint8 channel
    imagenet/{train,val}/CLASS/000000.png          RGB images of one dominant shape
    {coco,ade20k,imagenet}/recipe.json             what the layout was made from

**coco**: 1 to 5 shapes in each image; the classes are ``SCENE_CLASSES``, with category ids from 1.
Later shapes hide earlier ones; a mask holds exactly the visible pixels of its shape, as
uncompressed RLE (column-major run lengths), which needs no pycocotools to write and which
pycocotools and MMDetection read as it is. ``bbox`` is the tight [x, y, width, height] of the mask,
``area`` its pixels, ``iscrowd`` 0.

**ade20k**: label 0 is void, as in ADE20K, and never occurs; 1 is the background, ``2 + c`` the
scene class c. MMSegmentation's ``BaseSegDataset`` reads it with ``img_suffix='.png'``,
``reduce_zero_label=True`` and ``metainfo=dict(classes=SEG_CLASSES, palette=SEG_PALETTE)``; its
``ADE20KDataset`` takes no other classes than its own 150.

**imagenet**: one large shape in each image, among small distractors of other classes. Image i shows
class ``i % len(CLASSES)``, so that the classes are balanced; readers number the folders by name,
which is the order of ``sorted(CLASSES)``.

Image i of a split depends only on the seed, the split and i, so a larger data set begins with the
smaller one. PNG is lossless: the same seed gives the same pixels on every machine, and the same
bytes as long as the same version of OpenCV compresses them. The module needs numpy and OpenCV, but
not torch.
"""

from __future__ import annotations

import contextlib
import json
import operator
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mmvanilla.datasets.shapes_drawing import PALETTE, SCENE_CLASSES
from mmvanilla.datasets.shapes_files import (
    PORTRAIT_STREAM,
    RECIPE_NAME,
    RECIPE_VERSION,
    SCENE_STREAM,
    SPLITS,
    Task,
    Writer,
)
from mmvanilla.utils.paths import tool_command
from mmvanilla.utils.scratch import scratch_folder

SCENE_PALETTE: tuple[tuple[int, int, int], ...] = PALETTE[: len(SCENE_CLASSES)]
SEG_CLASSES: tuple[str, ...] = ("background", *SCENE_CLASSES)
"""The classes of the ade20k layout without label 0, which ``reduce_zero_label`` removes."""
SEG_PALETTE: tuple[tuple[int, int, int], ...] = ((128, 128, 128), *SCENE_PALETTE)

LAYOUTS: tuple[str, ...] = ("coco", "ade20k", "imagenet")
MIN_IMAGE_SIZE = 32
MAX_IMAGE_SIZE = 4096  # drawing takes about 100 bytes of memory per pixel: 1.6 GB at this size
_BYTES_PER_PIXEL = 1.5  # in a PNG file; small images take more

Progress = Callable[[Sequence[Task]], Iterable[Task]]


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
    """Write the data set below ``root``, in the formats that this module's docstring describes.

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
    root = Path(root)
    layouts = _check_layouts(layouts)
    numbers = {
        "num_train": _check_number("num_train", num_train, 1),
        "num_val": _check_number("num_val", num_val, 1),
        "image_size": _check_number("image_size", image_size, MIN_IMAGE_SIZE, MAX_IMAGE_SIZE),
        "seed": _check_number("seed", seed, 0),
    }
    recipes = {
        layout: {"layout": layout, "version": RECIPE_VERSION, **numbers} for layout in layouts
    }
    missing = [
        layout for layout in layouts if not _is_made(root / layout, recipes[layout], overwrite)
    ]
    if not missing:
        return ()
    _check_room(root, len(missing) * (numbers["num_train"] + numbers["num_val"]), image_size)

    streams = [SCENE_STREAM] if {"coco", "ade20k"} & set(missing) else []
    streams += [PORTRAIT_STREAM] if "imagenet" in missing else []
    tasks = [
        Task(stream, split, index)
        for stream in streams
        for split, count in zip(SPLITS, (numbers["num_train"], numbers["num_val"]), strict=True)
        for index in range(count)
    ]
    new_folders = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with scratch_folder(root, "making") as aside:
            writer = Writer(aside, missing, numbers["image_size"], numbers["seed"])
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
            with contextlib.suppress(OSError):  # not created yet, or not empty any more
                folder.rmdir()
        raise
    return tuple(missing)


def _check_layouts(layouts: Sequence[str]) -> tuple[str, ...]:
    if isinstance(layouts, str):
        raise TypeError(f"layouts is the string {layouts!r}, expected a sequence: [{layouts!r}]")
    for layout in layouts:
        if layout not in LAYOUTS:
            raise ValueError(f"unknown layout {layout!r}; choose from {', '.join(LAYOUTS)}")
    if not layouts:
        raise ValueError(f"layouts is empty; choose from {', '.join(LAYOUTS)}")
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
            f"{name} is {value}, expected at most {most}: drawing a larger image takes too much "
            "memory"
        )
    return value


def _check_room(root: Path, count: int, image_size: int) -> None:
    """Refuse a data set that the disk has no room for, before anything is drawn."""
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
    """Tell whether the layout was already made from this recipe; False if it must be written."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    try:
        found = json.loads((target / RECIPE_NAME).read_text(encoding="utf-8"))
        ours = isinstance(found, dict) and found.get("layout") == recipe["layout"]
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise ValueError(
            f"{target} exists, but make_shapes did not make it (it has no {RECIPE_NAME} of this "
            "layout), so it is not replaced; choose another folder"
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
    """Move a finished layout to its place; the old one is removed with the scratch folder."""
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
