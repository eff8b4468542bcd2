"""Make the layouts of a drawn data set: whole or not at all, and never over other people's files.

:mod:`mmvanilla.datasets.scene_files` says what the layouts are and writes their files.
"""

from __future__ import annotations

import contextlib
import json
import operator
import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mmvanilla.datasets.scene_files import (
    PORTRAIT_STREAM,
    RECIPE_NAME,
    SCENE_STREAM,
    SPLITS,
    DrawnDataSet,
    Task,
    Writer,
)
from mmvanilla.utils.paths import tool_command
from mmvanilla.utils.scratch import scratch_folder

MAX_IMAGE_SIZE = 4096  # drawing takes about 100 bytes of memory per pixel: 1.6 GB at this size
_BYTES_PER_PIXEL = 1.5  # in a PNG file; small images take more

Progress = Callable[[Sequence[Task]], Iterable[Task]]


def check_arguments(
    known: Sequence[str],
    layouts: Sequence[str],
    num_train: int,
    num_val: int,
    image_size: int,
    seed: int,
    min_image_size: int,
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Check the arguments that all drawn data sets have in common, before anything is read.

    Args:
        known: Names of the layouts that the data set has.
        layouts: Names of the layouts to make.
        num_train: Number of training images, at least 1.
        num_val: Number of validation images, at least 1.
        image_size: Height and width in pixels, up to 4096.
        seed: Seed of all random numbers, at least 0.
        min_image_size: Least value of ``image_size``.

    Returns:
        The layouts in the order of ``known``, and the numbers by name.

    Raises:
        TypeError: A number is not a whole number, or ``layouts`` not a sequence of names.
        ValueError: A number is out of range, or a layout is unknown.
    """
    if isinstance(layouts, str):
        raise TypeError(f"layouts is the string {layouts!r}, expected a sequence: [{layouts!r}]")
    for layout in layouts:
        if layout not in known:
            raise ValueError(f"unknown layout {layout!r}; choose from {', '.join(known)}")
    if not layouts:
        raise ValueError(f"layouts is empty; choose from {', '.join(known)}")
    numbers = {
        "num_train": _check_number("num_train", num_train, 1),
        "num_val": _check_number("num_val", num_val, 1),
        "image_size": _check_number("image_size", image_size, min_image_size, MAX_IMAGE_SIZE),
        "seed": _check_number("seed", seed, 0),
    }
    return tuple(layout for layout in known if layout in layouts), numbers


def make_layouts(
    data_set: DrawnDataSet,
    root: str | Path,
    layouts: Sequence[str],
    numbers: dict[str, int],
    progress: Progress | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write layouts of a drawn data set below ``root``.

    A layout that was already made from the same recipe is left as it is. All others are first
    written to a scratch folder inside ``root``, then renamed, so that a failure never leaves an
    incomplete layout behind.

    Args:
        data_set: What to draw.
        root: Folder of the layouts; it is created if it does not exist.
        layouts: Names of the layouts, as :func:`check_arguments` returns them.
        numbers: ``num_train``, ``num_val``, ``image_size`` and ``seed``, from the same function.
        progress: Function that wraps the list of images to make and yields each of them. None: no
            progress is shown.
        overwrite: Whether to replace layouts that were made from another recipe. A folder that this
            data set's tool did not make is never replaced. Default: False.

    Returns:
        Names of the layouts that were written; empty if all of them existed already.

    Raises:
        ValueError: A layout exists and may not be replaced.
        OSError: The folder cannot be written, or the disk has no room for the images.
    """
    root = Path(root)
    recipes = {
        layout: {"layout": layout, "version": data_set.version, **data_set.source, **numbers}
        for layout in layouts
    }

    def is_made(layout: str) -> bool:
        return _is_made(root / layout, recipes[layout], data_set, overwrite)

    missing = [layout for layout in layouts if not is_made(layout)]
    if not missing:
        return ()
    image_size = numbers["image_size"]
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
            writer = Writer(data_set, aside, missing, image_size, numbers["seed"])
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
                if not is_made(layout):  # another process may have been faster
                    _move_in(aside / layout, root / layout)
    except BaseException:
        for folder in new_folders:
            with contextlib.suppress(OSError):  # not created yet, or not empty any more
                folder.rmdir()
        raise
    return tuple(missing)


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


def _is_made(target: Path, recipe: dict, data_set: DrawnDataSet, overwrite: bool) -> bool:
    """Tell whether the layout was already made from this recipe; False if it must be written."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    try:
        found = json.loads((target / RECIPE_NAME).read_text(encoding="utf-8"))
        ours = isinstance(found, dict) and all(
            found.get(key) == recipe.get(key) for key in ("layout", "data_set")
        )
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise ValueError(
            f"{target} exists, but {data_set.tool} did not make it (it has no {RECIPE_NAME} of "
            "this layout), so it is not replaced; choose another folder"
        )
    if found == recipe:
        return True
    if overwrite:
        return False
    keys = [key for key in recipe if found.get(key) != recipe[key]]
    asked = [key for key in keys if key != "version" and key not in data_set.source]
    command = shlex.join(
        [
            *tool_command(data_set.tool).split(),
            str(target.parent),
            *("--layouts", target.name),
            *(word for key in asked for word in (f"--{key.replace('_', '-')}", str(recipe[key]))),
            *data_set.options,
            "--overwrite",
        ]
    )
    raise ValueError(
        f"{target} was made with {', '.join(f'{key}={found.get(key)}' for key in keys)}, but "
        f"{', '.join(f'{key}={recipe[key]}' for key in keys)} is wanted: choose another folder, "
        f"or replace it by `{command}` (overwrite=True)"
    )


def _move_in(new: Path, target: Path) -> None:
    """Move a finished layout to its place; the old one is removed with the scratch folder."""
    old = new.with_name(f"old-{new.name}")
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
