"""Build the data sets of a config, and compare what their files have with what they read."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.fileio import load
from mmengine.registry import DATASETS

from mmvanilla.apis.config import leaves
from mmvanilla.checks.findings import FAULT, OK, WARNING, Finding, words

_ROUNDING = 2  # pixels by which a box may reach out of its image


def build(node: Mapping[str, Any]) -> tuple[Any, Finding | None]:
    """Build a data set as the Runner does: it, or what is wrong."""
    try:
        return DATASETS.build(copy.deepcopy(node)), None
    except Exception as error:  # whatever a data set of any origin raises
        files = listed([part["ann_file"] for part in leaves(node) if part.get("ann_file")])
        remedy = "put the data there, or correct data_root, ann_file, data_prefix, img_suffix or "
        remedy += "filter_cfg" + f", or the entries of {files}" * bool(files)
        return None, Finding(FAULT, "", words(error), remedy, certain=True)


def spaced(length: int, count: int | None) -> list[int]:
    """Choose indices from the whole of a data set, since many are sorted by their classes."""
    count = length if count is None else min(length, count)
    return [index * (length - 1) // max(count - 1, 1) for index in range(count)]


def listed(names: Sequence[Any], most: int = 8) -> str:
    """Write the first names of many."""
    return ", ".join(map(str, names[:most])) + ", …" * (len(names) > most)


def disagree(first: Sequence[str], second: Sequence[str]) -> bool:
    """Tell whether a name is that of different labels."""
    return any(name in first and first.index(name) != i for i, name in enumerate(second))


def check_part(
    subject: str, part: Any, images: int | None
) -> tuple[tuple[str, ...], list[Finding]]:
    """Name the labels of a data set without wrappers, and compare one of COCO's with its file.

    So many images are compared, None for all; all, too, if a few say that training cannot work.
    """
    given = (getattr(part, "metainfo", None) or {}).get("classes") or ()
    given = tuple([given] if isinstance(given, str) else given)
    if not hasattr(part, "cat2label") or not str(part.ann_file).endswith(".json"):
        return given, []
    file = load(part.ann_file, backend_args=part.backend_args)
    findings = _check_annotations(subject, part, file, images)
    if images is not None and any(item.certain for item in findings):  # a few are no proof
        findings = _check_annotations(subject, part, file, None)
    # MMDetection numbers the categories as the file does.
    categories = {category["id"]: category["name"] for category in file["categories"]}
    names = tuple(categories[number] for number in part.cat_ids)
    if len(given) != len(names) or disagree(given, names):
        text = f"the classes are {listed(given)}, but {part.ann_file} has the categories "
        text += listed([*categories.values()])
        remedy = "name classes that it has, as a list, and sort its `categories` as they are"
        findings.append(Finding(FAULT, subject, text, remedy, certain=True))
    return names, findings


def _check_annotations(subject: str, part: Any, file: Any, images: int | None) -> list[Finding]:
    """Compare the annotations of a COCO file with the objects that its data set has."""
    kept: dict[int, set[tuple[float, ...]]] = {}
    for info in map(part.get_data_info, spaced(len(part), images)):
        kept[info["img_id"]] = {tuple(item["bbox"]) for item in info["instances"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in file["images"]}
    others = {category["id"] for category in file["categories"]} - set(part.cat_ids)
    counts: Counter[str] = Counter()
    first: dict[str, Any] = {}
    unread: set[str] = set()
    for item in file.get("annotations", ()):
        image = item["image_id"]
        if image not in kept or "bbox" not in item or item["category_id"] in others:
            continue
        x, y, width, height = item["bbox"]
        is_read = (x, y, x + width, y + height) in kept[image]
        if not (is_read or first):
            first = {key: value for key, value in item.items() if key != "segmentation"}
        counts["all"] += 1
        counts["dropped"] += not is_read
        counts["ignored"] += bool(item.get("iscrowd"))
        counts["outside"] += not _is_inside((x, y, x + width, y + height), sizes[image])
        counts["corners"] += _is_inside(item["bbox"], sizes[image])
        unread |= {"area", "iscrowd"} - item.keys()
    every, name = counts["all"], f"annotations of {part.ann_file}"
    text = f"{every} {name}, {counts['dropped']} dropped, {counts['ignored']} ignored"
    findings = [Finding(OK, subject, text)]
    as_corners = counts["corners"] > 0.9 * every
    beyond = "reach out of their image" + ", but would not as two corners" * as_corners
    box = "bbox must be x, y, width and height in pixels"
    ids = f"category_id must be in {part.cat_ids}, and {box}"
    # What is counted, the shares that are a warning and a fault, what to say, and the remedy.
    for key, some, many, text, remedy in (
        ("dropped", 0.01, 0.1, f"are dropped, as {first}", ids),
        ("ignored", 0.5, 0.99, "are ignored", "set iscrowd=0 for all but crowds"),
        ("outside", 0.1, 0.1 if as_corners else 1, beyond, box),
    ):
        if (count := counts[key]) > some * every:
            status = FAULT if count > many * every else WARNING
            is_certain = status == FAULT and count == every
            text = f"{count} of {every} {name} {text}"
            findings.append(Finding(status, subject, text, remedy, is_certain))
    if unread and not subject.startswith("train"):
        text = f"{name} have no {', '.join(unread)}, which the evaluation reads"
        findings.append(Finding(FAULT, subject, text, "add it"))
    return findings


def _is_inside(corners: Sequence[float], size: tuple[int, int]) -> bool:
    left, top, right, bottom = corners
    fits = right <= size[0] + _ROUNDING and bottom <= size[1] + _ROUNDING
    return -_ROUNDING <= left < right and -_ROUNDING <= top < bottom and fits
