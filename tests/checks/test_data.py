"""What the model is fed: each mistake that people make in their data is named, and no other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmvanilla.apis.config import load_config, use_scope
from mmvanilla.checks.data import check_data
from mmvanilla.checks.findings import FAULT, OK, Finding
from mmvanilla.datasets.shapes import make_shapes
from tests import toy_training as toy_training  # registers ToyImages
from tests.checks.spoiling import (
    Change,
    boxes,
    coco,
    each,
    for_both,
    labels,
    listed_from_1,
    option,
    remove,
    resize_before_the_labels,
    without,
    without_squares,
)
from tests.helpers import CONFIGS

COCO, SEG = "maskrcnn_vanillanet_shapes.py", "upernet_vanillanet_shapes.py"
CLS = "vanillanet_shapes.py"
TOOLBOX = {COCO: "mmdet", SEG: "mmseg", CLS: "mmpretrain"}
ALL = [pytest.param(name, marks=pytest.mark.toolbox(TOOLBOX[name])) for name in TOOLBOX]


def marked(cases: dict[str, tuple[Any, ...]]) -> list[Any]:
    """The names of cases, each with the toolbox of its config."""
    mark = pytest.mark.toolbox
    return [pytest.param(name, marks=mark(TOOLBOX[case[0]])) for name, case in cases.items()]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    make_shapes(root, num_train=8, num_val=8, image_size=48)
    return root


@pytest.fixture
def data(drawn, tmp_path, monkeypatch) -> Path:
    """The shapes, where the configs expect them and where a test may spoil them."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(drawn, tmp_path / "data" / "shapes"))


def look(name: str, *changes: Change, **options: Any) -> list[Finding]:
    """Change the config, or the data that it names, and look at what the model is fed."""
    cfg = load_config(str(CONFIGS / "shapes" / name))
    use_scope(cfg)
    for change in changes:
        change(cfg)
    return check_data(cfg, **options)


def wrong(found: list[Finding]) -> list[str]:
    return [f"{item.status} {item.subject}: {item}" for item in found if item.status != OK]


TWO = dict(classes=("background", "shape"), palette=[(0, 0, 0), (9, 9, 9)])
AS_TWO = for_both(reduce_zero_label=False, metainfo=TWO)
REVERSED = ("triangle", "square", "circle")
TEXTS = each(lambda item: item.update(category_id=str(item["category_id"])))
CROWDS = each(lambda item: item.update(iscrowd=1))
SMALLER = each(lambda item: item.update(width=24, height=24), "images")
REORDERED = coco(lambda content: content["categories"].reverse())
RENAMED = coco(lambda content: content["categories"][2].update(name="cat"))
EMPTY = coco(lambda content: content.update(annotations=[]))
NO_SQUARE = coco(without_squares)
FILTER = option(train_dataloader__dataset__filter_cfg=dict(filter_empty_gt=True))
EIGHTY = option(model__roi_head__bbox_head__num_classes=80)
SEVEN, FIVE = option(model__head__num_classes=7), option(model__head__num_classes=5)
NO_RING = remove("imagenet/val/ring")
LINES = each(lambda item: item.update(segmentation=[[1, 1, 5, 5]]))
SQUARE_CROWDS = each(lambda item: item.update(iscrowd=int(item["category_id"] == 2)))
IMAGE_TEXTS = each(lambda item: item.update(image_id=str(item["image_id"])))
LARGE = dict(type="FilterAnnotations", min_gt_bbox_wh=(500, 500), keep_empty=False)
DROPS_ALL = lambda cfg: cfg.train_dataloader.dataset.pipeline.insert(2, LARGE)  # noqa: E731
NO_LABELS = lambda cfg: cfg.train_dataloader.dataset.pipeline.pop(1)  # noqa: E731
IN_CAPITALS = for_both(metainfo=dict(classes=("Circle", "Square", "Triangle")))
IGNORES_9 = option(model__decode_head__ignore_index=9)


def ignore(share: float, label: int = 255) -> Change:
    def cover(label_map: np.ndarray) -> np.ndarray:
        label_map[: round(share * len(label_map))] = (label + 1) % 256  # reduced by one
        return label_map

    return labels(cover)


# The config, what is changed, what is said, and whether a training is refused.
CASES: dict[str, tuple[str, list[Change], str, bool]] = {
    "texts as ids": (COCO, [TEXTS], "are dropped, as {'id': 1", True),
    "texts as ids, filtered": (COCO, [TEXTS, FILTER], "img_suffix or filter_cfg, or the", True),
    "all crowds": (COCO, [CROWDS], "are ignored; set iscrowd=0", True),
    "from 0 to 1": (COCO, [boxes(lambda *box: [x / 48 for x in box])], "are dropped", True),
    "corners": (COCO, [boxes(lambda x, y, w, h: [x, y, x + w, y + h])], "as two corners", False),
    "wrong size": (COCO, [SMALLER], "is 48x48, but its annotations are for 24x24", True),
    "no area": (COCO, [without("area")], "KeyError: 'area'", True),
    "no height": (COCO, [without("height", "images")], "KeyError: 'height'", True),
    "no masks": (COCO, [without("segmentation")], ".png: KeyError: 'mask'", True),
    "no iscrowd": (COCO, [without("iscrowd", split="val")], "iscrowd, which the evaluat", False),
    "no such name": (COCO, [RENAMED], "has the categories circle, square, cat; name classes", True),
    "another order than the classes": (COCO, [REORDERED], "categories triangle, square, ci", True),
    "a class without objects": (COCO, [NO_SQUARE], "in this split: square", False),
    "no annotations": (COCO, [EMPTY], "no objects of any", True),
    "no image file": (COCO, [remove("coco/train/000000.png")], "000000.png: FileNotFou", True),
    "many outputs": (COCO, [EIGHTY], "is 80, but", False),
    "lines as masks": (COCO, [LINES], "no objects of any class arrive", True),
    "a class of crowds": (COCO, [SQUARE_CROWDS], "never seen in this split: square", False),
    "objects that the pipeline drops": (COCO, [DROPS_ALL], "no objects of any class arrive", True),
    "a pipeline without labels": (COCO, [NO_LABELS], "no labels arrive", True),
    "classes in capitals": (COCO, [IN_CAPITALS], "the categories circle, square, triangle", True),
    "ids of images as texts": (COCO, [IMAGE_TEXTS], "no objects of any class arrive", True),
    "0 and 255": (SEG, [labels(lambda a: np.where(a > 1, 255, 0)), AS_TWO], "split: shape", False),
    "from 0": (SEG, [labels(lambda a: a - 1)], "reduce_zero_label=False keeps label 0", False),
    "half as large": (SEG, [labels(lambda a: a[::2, ::2])], "24x24, but its image is 48x48", True),
    "colours": (SEG, [labels(lambda a: np.dstack([a] * 3))], "48x48x3, but its image is", True),
    "beyond the classes": (SEG, [labels(lambda a: a + 2)], "[4, 5] are outside of the 4", True),
    "all ignored": (SEG, [labels(lambda a: a * 0)], "no pixels of any class arrive", True),
    "ignored elsewhere": (SEG, [ignore(0.4), IGNORES_9], "labels [255] are outside of", True),
    "another suffix": (SEG, [for_both(img_suffix=".jpg")], "img_suffix or filter_cfg", True),
    "no label map": (SEG, [remove("ade20k/annotations/*/*0.png")], "FileNotFoundError", True),
    "resized alone": (SEG, [resize_before_the_labels], "is 48x48, but its image is 32x32", True),
    "other folders": (CLS, [NO_RING], "of the val data are circle, cross", True),
    "other classes": (CLS, [for_both(metainfo=TWO)], "(6) doesn't match the number of spe", True),
    "labels from 1": (CLS, [listed_from_1], "labels [6] are outside of the 6 classes", True),
    "no files": (CLS, [remove("imagenet/train/*/*")], "Found 0 files in subfolders", True),
    "no data": (SEG, [remove("ade20k")], "train data: FileNotFoundError", True),
    "an empty folder": (CLS, [remove("imagenet/train/ring/*")], "in this split: ring", False),
    "few outputs": (CLS, [FIVE], "num_classes is 5, but the", True),
}


@pytest.mark.parametrize("case", marked(CASES))
def test_mistakes(data, case):
    name, changes, text, is_certain = CASES[case]
    found = look(name, *changes)
    fault = next((x for x in found if x.status == FAULT and text in f"{x.subject}: {x}"), None)
    assert fault and fault.certain == is_certain, wrong(found)
    assert fault.remedy and "\n" not in str(fault)


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize("change", [TEXTS, CROWDS, without("segmentation"), REORDERED, IMAGE_TEXTS])
def test_a_training_sees_it_in_its_first_images(data, change):
    assert any(item.certain for item in look(COCO, change, images=4, thorough=False))


@pytest.mark.parametrize("name", ALL)
def test_what_fits_is_described_and_drawn(data, name):
    found = look(name, show_dir="shown")
    assert not wrong(found)
    texts = "\n".join(item.text for item in found if item.subject == "train data")
    for text in {
        COCO: ("8 of 8 images, 48x48", "objects arrive", "whole split: circle", "0 ignored"),
        SEG: ("pixels arrive, 0% ignored; whole split: background",),
        CLS: ("8 labels arrive", "whole split: circle 2"),
    }[name]:
        assert text in texts
    picture = cv2.imread("shown/train.png")
    assert picture.shape[1] > 4 * 48


@pytest.mark.toolbox("mmpretrain")
def test_labels_are_counted_as_often_as_they_are_repeated(data):
    def repeat(cfg: Any) -> None:
        dataset = cfg.train_dataloader.dataset
        cfg.train_dataloader.dataset = dict(type="RepeatDataset", times=3, dataset=dataset)

    texts = [item.text for item in look(CLS, repeat, images=4)]
    assert any("whole split: circle 6" in text for text in texts), texts


def second_part(cfg: Any) -> None:
    first = cfg.train_dataloader.dataset
    more = dict(ann_file="annotations/instances_val.json", data_prefix=dict(img="val/"))
    second = dict(first, **more, metainfo=dict(classes=REVERSED))
    node = dict(type="ConcatDataset", datasets=[first, second], ignore_keys=["classes"])
    cfg.train_dataloader.dataset = node


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize("thorough", [True, False])
@pytest.mark.parametrize(
    "change", [second_part, option(val_dataloader__dataset__metainfo=dict(classes=REVERSED))]
)
def test_classes_in_another_order_elsewhere(data, change, thorough):
    """Also with the classes of each in the order of its own file."""
    reverse = coco(lambda content: content["categories"].reverse(), "val")
    found = look(COCO, reverse, change, thorough=thorough)
    text = "triangle, square, circle, and of the train data"
    assert any(item.certain and text in item.text for item in found)


# ---- what real data sets have, and is no mistake


def one_crowd(content: dict[str, Any]) -> None:
    """One image of which only a crowd is annotated, as COCO has some."""
    image = content["images"][0]["id"]
    rest = [item for item in content["annotations"] if item["image_id"] != image]
    crowd = next(item for item in content["annotations"] if item["image_id"] == image)
    content["annotations"] = [dict(crowd, iscrowd=1), *rest]


CIRCLES = for_both(metainfo=dict(classes=("circle", "triangle")))
TWO_OUTPUTS = option(
    test_dataloader=None,
    model__roi_head__bbox_head__num_classes=2,
    model__roi_head__mask_head__num_classes=2,
)
UNLABELLED = coco(lambda content: content.pop("annotations"), "val")


ONLY_TESTED = option(val_dataloader=None)


def no_labels_in_tests(cfg: Any) -> None:
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        steps = loader.dataset.pipeline
        loader.dataset.pipeline = [step for step in steps if step["type"] != "LoadAnnotations"]


def of_torch_alone(cfg: Any) -> None:
    cfg.train_dataloader.dataset = dict(type="ToyImages")


FINE: dict[str, tuple[str, list[Change], dict[str, Any]]] = {
    "an image with a crowd only": (COCO, [coco(one_crowd)], {}),
    "which a training sees alone": (COCO, [coco(one_crowd)], dict(images=1, thorough=False)),
    "a class that few images have": (COCO, [NO_SQUARE], dict(images=2, thorough=False)),
    "a test split without annotations": (COCO, [UNLABELLED, ONLY_TESTED], {}),
    "some of the categories": (COCO, [CIRCLES, TWO_OUTPUTS], {}),
    "a class that few label maps have": (SEG, [], dict(images=1)),
    "a car's bonnet that is ignored": (SEG, [ignore(0.4)], {}),
    "a test that reads its labels from the file": (COCO, [no_labels_in_tests], {}),
    "as the head ignores it": (SEG, [ignore(0.4, 9), IGNORES_9], {}),
    "a head of words": (COCO, [option(model__language_model=dict(type="BertModel")), EIGHTY], {}),
    "a data set of torch alone": (CLS, [of_torch_alone], {}),
}


@pytest.mark.parametrize("case", marked(FINE))
def test_no_mistakes(data, case):
    name, changes, options = FINE[case]
    assert not wrong(look(name, *changes, **options))


STRAY = coco(lambda content: content["annotations"][0].update(category_id=77))
CUT = boxes(lambda x, y, w, h: [x, y, 60 - x, h])
WARNED: dict[str, tuple[str, Change, str, str]] = {
    "a lost annotation": (COCO, STRAY, "train data: 1 of", "are dropped"),
    "boxes that are cut": (COCO, CUT, "train data: ", "reach out of their image;"),
    "much that is ignored": (SEG, ignore(0.6), "train data: 60% of the pixels are ignored", ""),
    "more outputs than classes": (CLS, SEVEN, "classes: model.head.num_classes is 7, but", ""),
}


@pytest.mark.parametrize("case", marked(WARNED))
def test_warnings(data, case):
    name, change, start, text = WARNED[case]
    found = wrong(look(name, change))
    assert any(each.startswith(f"warning {start}") and text in each for each in found), found
    assert len(found) == 1 or name == SEG
