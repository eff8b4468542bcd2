"""Build the data sets of a config, and compare what their files have with what they read."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.fileio import load
from mmengine.registry import DATASETS

from mmvanilla.checks.findings import FAULT, OK, WARNING, Finding, words

_MANY, _LONG = 0.1, 120  # a share, and characters of a value


def build(node: Mapping[str, Any]) -> tuple[Any, str]:
    """Build a data set as the Runner does.

    Args:
        node: Its config.

    Returns:
        The data set, None if there is none, and what is wrong with it. If ``filter_cfg`` leaves no
        image, it is the data set without this filter.
    """
    try:
        return DATASETS.build(copy.deepcopy(node)), ""
    except Exception as error:  # whatever a data set of any origin raises
        text = words(error)
    for leaf in leaf_nodes(node):
        try:
            DATASETS.build(copy.deepcopy(leaf))
        except Exception as error:
            text = words(error)
            # mmengine says in NumPy's words that there is no image.
            with contextlib.suppress(Exception):
                whole = {**copy.deepcopy(leaf), "filter_cfg": None, "lazy_init": True}
                dataset = DATASETS.build(whole)
                if dataset.load_data_list():
                    dataset.full_init()
                    return dataset, "filter_cfg leaves none of its images"
                suffix = getattr(dataset, "img_suffix", "")
                text = f"no image *{suffix} in {', '.join(map(str, dataset.data_prefix.values()))}"
            break
    return None, text


def leaf_nodes(node: Mapping[str, Any]) -> Iterator[Any]:
    """List the configs of the data sets inside wrappers such as RepeatDataset."""
    inner = node.get("datasets") or [node.get("dataset")]
    for part in inner:
        yield from [node] if part is None else leaf_nodes(part)


def leaves(dataset: Any) -> Iterator[Any]:
    """List the data sets inside wrappers such as ConcatDataset, built."""
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    for part in inner:
        yield from [dataset] if part is None else leaves(part)


def coco_file(dataset: Any) -> Any:
    """Read the annotation file of one of MMDetection's COCO data sets; None for another one."""
    if not hasattr(dataset, "cat2label") or not str(dataset.ann_file).endswith(".json"):
        return None
    return load(dataset.ann_file, backend_args=dataset.backend_args)


def class_names(dataset: Any, file: Any = None) -> tuple[str, ...]:
    """Return the name of each label: MMDetection numbers the categories as the file does."""
    if file is not None:
        names = {category["id"]: category["name"] for category in file["categories"]}
        return tuple(names[number] for number in dataset.cat_ids)
    given = (getattr(dataset, "metainfo", None) or {}).get("classes")
    return tuple(given) if isinstance(given, list | tuple) else ()


def whole_counts(dataset: Any) -> Counter[int] | None:
    """Count the objects or images of each label in a whole split; None if only samples tell."""
    counts: Counter[int] = Counter()
    for part in leaves(dataset):
        if hasattr(part, "get_gt_labels"):  # MMPretrain
            counts.update(label for i in range(len(part)) for label in part.get_cat_ids(i))
        elif len(part) and "instances" in part.get_data_info(0):
            objects = (item for _, item in _objects(part) if not item.get("ignore_flag"))
            counts.update(item["bbox_label"] for item in objects)
        else:
            return None
    return counts


def compare_with_file(subject: str, dataset: Any, file: Any, evaluated: bool) -> list[Finding]:
    """Compare the annotations of a COCO file with the objects that its data set has.

    Args:
        subject: What the findings are about.
        dataset: A ``CocoDataset``, built.
        file: Its annotation file.
        evaluated: Whether pycocotools will evaluate with the file.
    """
    images = {image["id"]: image for image in file["images"]}
    others = {category["id"] for category in file["categories"]} - set(dataset.cat_ids)
    found = list(_objects(dataset))
    ids = {dataset.get_data_info(index)["img_id"] for index in range(len(dataset))}
    wanted = [
        item
        for item in file["annotations"]
        if item["image_id"] in ids and item["category_id"] not in others
    ]
    kept = {(info["img_id"], *item["bbox"]) for info, item in found}
    lost = [item for item in wanted if (item["image_id"], *_corners(item["bbox"])) not in kept]
    ignored = sum(bool(item["ignore_flag"]) for _, item in found)
    outside = sum(not _is_inside(item["bbox"], info) for info, item in found)
    unread = [key for key in ("area", "iscrowd") if any(key not in item for item in wanted)]
    name = f"annotations of {dataset.ann_file}"
    findings = [Finding(OK, subject, f"{len(wanted)} {name}, {len(found)} read, {ignored} ignored")]

    def complain(count: int, total: int, text: str, remedy: str, worst: str = FAULT) -> None:
        if count:
            status = worst if count > _MANY * total else WARNING
            text = f"{count} of {total} {name} {text}"
            findings.append(Finding(status, subject, text, remedy, certain=count == total))

    if lost:
        first = f"{_short(lost[0])} of the image {_short(images[lost[0]['image_id']])}"
        remedy = f"category_id must be one of {dataset.cat_ids}, and bbox x, y, width and height in"
        remedy += " pixels inside of the image"
        complain(len(lost), len(wanted), f"are dropped, as {first}", remedy)
    complain(ignored, len(found), "are ignored (iscrowd=1)", "set iscrowd=0 except for crowds")
    as_corners = all(_is_inside(item["bbox"], images[item["image_id"]]) for item in wanted)
    text = "reach out of their image" + ", but would not as two corners" * as_corners
    remedy = "write bbox as x, y, width and height"
    complain(outside, len(found), text, remedy, FAULT if as_corners else WARNING)
    if unread and evaluated:
        text = f"{name} have no {', '.join(unread)}, which the evaluation reads"
        findings.append(Finding(FAULT, subject, text, "add it"))
    return findings


def _objects(dataset: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for item in info["instances"]:
            yield info, item


def _corners(box: list[float]) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def _is_inside(corners: list[float], image: Mapping[str, Any]) -> bool:
    left, top, right, bottom = corners
    fits = right <= image["width"] + 2 and bottom <= image["height"] + 2
    return -2 <= left < right and -2 <= top < bottom and fits


def _short(item: Mapping[str, Any]) -> str:
    return str({key: value for key, value in item.items() if len(str(value)) < _LONG})
