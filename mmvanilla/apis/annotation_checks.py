"""Check that the files of a data set fit its classes, without reading all of the files."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_MANY = 8  # names that a message lists


class ClassFolders:
    """Checks data sets with a folder for each class, which must be the same in all splits.

    MMPretrain numbers the folders by their sorted names: if one is missing, every class after it
    gets another number, without an error.

    Args:
        num_classes: Number of classes of the model's head; None if unknown.
    """

    def __init__(self, num_classes: int | None) -> None:
        self.num_classes = num_classes
        self.first: tuple[str, list[str]] | None = None

    def check(self, dataset: Any) -> None:
        """Check one of MMPretrain's data sets, built without its samples.

        Args:
            dataset: A ``CustomDataset``; one that reads an annotation file is not checked.

        Raises:
            ValueError: Class folders are missing or unexpected.
        """
        folder = dataset.img_prefix
        if dataset.ann_file or not dataset.with_label or "://" in folder:
            return
        from mmpretrain.datasets.custom import find_folders

        names = list(find_folders(folder)[0])
        if self.first is not None and names != self.first[1]:
            other, expected = self.first
            raise ValueError(
                f"the class folders of {folder} differ from those of {other}: "
                f"{_differences(expected, names)}; add or remove folders until both are the same"
            )
        self.first = self.first or (folder, names)
        for wanted, what in (
            (dataset.CLASSES and len(dataset.CLASSES), f"the classes of {type(dataset).__name__}"),
            (self.num_classes, "model.head.num_classes"),
        ):
            if wanted and wanted != len(names):
                raise ValueError(
                    f"{folder} has {len(names)} class folders ({_listed(names)}), but {what} "
                    f"{'are' if what.startswith('the') else 'is'} {wanted}; add the missing "
                    "folders, remove the unexpected ones, or correct the number in the config"
                )


def check_segmentation(dataset: Any) -> None:
    """Check that one of MMSegmentation's data sets finds an image and its label map.

    Args:
        dataset: A ``BaseSegDataset``, built without its list of files.

    Raises:
        ValueError: No image name ends with ``img_suffix``, or the first image has no label map.
    """
    images = dataset.data_prefix.get("img_path") or ""
    maps = dataset.data_prefix.get("seg_map_path") or ""
    if "://" in images or (dataset.ann_file and os.path.isfile(dataset.ann_file)):
        return
    seen = None
    for seen in _files_below(images):
        if seen.name.endswith(dataset.img_suffix):
            break
    else:
        found = f"found {seen.name}, for example" if seen else "found no file"
        raise ValueError(
            f"no image in {images} ends with {dataset.img_suffix!r} ({found}); correct img_suffix "
            "or data_prefix"
        )
    if not os.path.isdir(maps) or type(dataset).__name__.startswith("BaseCD"):
        return
    name = seen.relative_to(images).as_posix().removesuffix(dataset.img_suffix)
    label_map = Path(maps, name + dataset.seg_map_suffix)
    if not label_map.is_file():
        raise ValueError(
            f"the image {seen} has no label map {label_map}; correct seg_map_suffix or data_prefix"
        )


def check_coco(dataset: Any) -> None:
    """Check the categories of a COCO annotation file, and the path of its first image.

    MMDetection leaves out classes that the file does not have, and numbers the others by their
    order in the file; it does both without an error.

    Args:
        dataset: A ``CocoDataset``, built without its annotations.

    Raises:
        ValueError: The file is not in COCO's format, lacks classes of the data set, has them in
            another order, or names an image that is not in its folder.
    """
    from mmdet.datasets import CocoDataset

    path = dataset.ann_file
    if type(dataset).load_data_list is not CocoDataset.load_data_list or "://" in path:
        return
    found = _categories(path)
    classes = list(dataset.metainfo.get("classes") or ())
    missing = [name for name in classes if name not in found]
    if missing:
        raise ValueError(
            f"{path} has no category {_listed(missing)}; its categories are {_listed(found)}. Set "
            "metainfo=dict(classes=...) of the data set to names in the file"
        )
    in_file = [name for name in found if name in classes]
    if in_file != classes:
        raise ValueError(
            f"the categories of {path} ({_listed(in_file)}) are in another order than the classes "
            f"of the data set ({_listed(classes)}), so labels would get wrong names; give "
            "metainfo=dict(classes=...) in the order of the file"
        )
    _check_first_image(path, dataset.data_prefix.get("img") or "")


def _categories(path: str) -> list[str]:
    """Find the names of a COCO file's categories without parsing its annotations."""
    with open(path, "rb") as file:
        if os.path.getsize(path) == 0:
            raise ValueError(f"{path} is empty; a COCO annotation file is expected")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for match in re.finditer(rb'"categories"\s*:\s*(?=\[)', data):
                names = _category_names(_list_at(data, match.end()))
                if names is not None:
                    return names
    raise ValueError(
        f'{path} is not a COCO annotation file: it has no list "categories" of objects with id '
        "and name; correct ann_file"
    )


def _list_at(data: mmap.mmap, start: int) -> Any:
    size = 1 << 16
    while True:
        text = data[start : start + size].decode("utf-8", errors="ignore")
        try:
            return json.JSONDecoder().raw_decode(text)[0]
        except ValueError:
            if start + size >= len(data):
                return None
            size *= 8


def _category_names(value: Any) -> list[str] | None:
    if not isinstance(value, list):
        return None
    if not all(isinstance(item, dict) and {"id", "name"} <= item.keys() for item in value):
        return None
    return [item["name"] for item in value]


def _check_first_image(path: str, folder: str) -> None:
    if not folder or "://" in folder:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        match = re.search(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', data)
        text = match[1] if match else None  # a copy, since the file will be closed
    if text is None:
        raise ValueError(f"{path} names no image; correct ann_file")
    name = json.loads(text)
    if not os.path.isfile(os.path.join(folder, name)):
        raise ValueError(
            f"{path} names the image {name}, which is not in {folder}; correct data_prefix or "
            "ann_file"
        )


def _files_below(folder: str) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(where, name)


def _differences(expected: Sequence[str], found: Sequence[str]) -> str:
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    parts = [f"no {_listed(missing)}"] * bool(missing) + [f"also {_listed(extra)}"] * bool(extra)
    return " and ".join(parts)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:_MANY])) + (", …" if len(names) > _MANY else "")
