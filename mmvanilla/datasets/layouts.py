"""Write drawn scenes in the layouts of COCO, ADE20K and ImageNet, each in a folder of its own.

::

    coco/{train,val}/000000.png                    RGB images
    coco/annotations/instances_{train,val}.json    visible pixels of each object, uncompressed RLE
    ade20k/images/{training,validation}/000000.png the same images as in coco/
    ade20k/annotations/{training,validation}/000000.png  1 is the background, 2 + c is class c
    imagenet/{train,val}/CLASS/000000.png          images of one dominant object, classes in turns
    {coco,ade20k,imagenet}/recipe.json             what the layout was made from

PNG is lossless: the same seed gives the same pixels on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from mmvanilla.datasets.scenes import Scene

SPLITS = {"train": "training", "val": "validation"}  # names in COCO and ImageNet, and in ADE20K
Scenes = Mapping[str, Iterable[Scene]]  # of each split


def draw_splits(
    draw: Callable[[np.random.Generator, str, int], Scene],
    numbers: Mapping[str, int],
    stream: int = 0,
) -> Scenes:
    """Draw the scenes of each split, one by one as they are asked for.

    ``draw`` takes a generator, the split and the index of the scene, on which alone it depends,
    with the seed and the ``stream`` of a kind of images: a larger data set begins with the smaller.
    """

    def scenes(place: int, split: str) -> Iterator[Scene]:
        for index in range(numbers[f"num_{split}"]):
            rng = np.random.default_rng([numbers["seed"], place, stream, index])
            yield draw(rng, split, index)

    return {split: scenes(place, split) for place, split in enumerate(SPLITS)}


def make_layouts(
    root: str | Path,
    layouts: Sequence[str],
    writers: Mapping[str, Callable[[Path], None]],
    recipe: Mapping[str, Any],
) -> tuple[str, ...]:
    """Write layouts below ``root`` from a recipe, each whole or not at all; return the new ones.

    Raises:
        ValueError: A number is out of range, a layout is unknown, or its folder holds other files.
    """
    if isinstance(layouts, str) or not layouts or set(layouts) - set(writers):
        raise ValueError(f"layouts is {layouts!r}, expected a list of {', '.join(writers)}")
    for name, least in (("num_train", 1), ("num_val", 1), ("image_size", 32), ("seed", 0)):
        if recipe[name] < least:
            raise ValueError(f"{name} is {recipe[name]}, expected at least {least}")
    root = Path(root)
    recipes = {name: {"layout": name, **recipe} for name in writers if name in layouts}
    missing = [name for name, wanted in recipes.items() if not _is_made(root / name, wanted)]
    for name in missing:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".making-", dir=root) as aside:
            made = Path(aside, name)
            writers[name](made)
            _write_json(made / "recipe.json", recipes[name])
            made.rename(root / name)  # fails if there are files by now
    return tuple(missing)


def _is_made(folder: Path, recipe: Mapping[str, object]) -> bool:
    """Tell whether a layout was made from this recipe before; False if it must be written."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    path = folder / "recipe.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else "something else"
    if found != recipe:
        text = f"{folder} is there, made from {found}, but {recipe} is wanted; "
        raise ValueError(f"{text}delete that folder, or choose another one")
    return True


def write_coco(folder: Path, scenes: Scenes, classes: Sequence[str], kind: str) -> None:
    """Write images and instances; ``kind`` is what all categories are."""
    for split, drawn in scenes.items():
        images: list[dict] = []
        annotations: list[dict] = []
        for index, scene in enumerate(drawn):
            name, (height, width) = f"{index:06d}.png", scene.owner.shape
            _write_png(folder / split / name, scene.image)
            images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
            annotations += coco_annotations(scene, index + 1, len(annotations) + 1)
        named = enumerate(classes, start=1)
        categories = [{"id": x, "name": name, "supercategory": kind} for x, name in named]
        content = {"categories": categories, "images": images, "annotations": annotations}
        _write_json(folder / "annotations" / f"instances_{split}.json", content)


def write_ade20k(folder: Path, scenes: Scenes) -> None:
    """Write images and label maps; label 0 is void, as in ADE20K, and never occurs."""
    for split, drawn in scenes.items():
        for index, scene in enumerate(drawn):
            place = Path(SPLITS[split], f"{index:06d}.png")
            _write_png(folder / "images" / place, scene.image)
            _write_png(folder / "annotations" / place, label_map(scene))


def write_imagenet(folder: Path, portraits: Scenes, classes: Sequence[str]) -> None:
    """Write images, the classes in turns."""
    for split, drawn in portraits.items():
        for name in classes:  # a class without images, too: readers number the folders
            (folder / split / name).mkdir(parents=True)
        for index, portrait in enumerate(drawn):
            name = classes[index % len(classes)]
            _write_png(folder / split / name / f"{index:06d}.png", portrait.image)


def coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    """Make the annotations of a scene in COCO's format, with ids from ``first_id`` on."""
    annotations = []
    for position, label in enumerate(scene.labels):
        mask = scene.owner == position
        # COCO's uncompressed run lengths go down the columns and begin with the zeros.
        starts = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False))
        runs = np.diff(starts, prepend=0, append=mask.size).tolist()
        item: dict[str, Any] = {"id": first_id + position, "image_id": image_id, "iscrowd": 0}
        item |= {"category_id": label + 1, "area": int(mask.sum())}
        item["bbox"] = list(cv2.boundingRect(mask.astype(np.uint8)))
        item["segmentation"] = {"size": list(mask.shape), "counts": runs}
        annotations.append(item)
    return annotations


def label_map(scene: Scene) -> np.ndarray:
    """Make a label map as in ADE20K, (H, W) uint8: 1 is the background, 2 + c is class c."""
    by_position = np.array([*(label + 2 for label in scene.labels), 1], dtype=np.uint8)
    return by_position[scene.owner]  # owner -1 picks the last: the background


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels):
        raise OSError(f"{path} cannot be written")
