"""What the model is fed: each mistake that people make in their data is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmvanilla.apis.config import load_config, use_scope
from mmvanilla.apis.model import build_on_meta
from mmvanilla.checks.data import check_data
from mmvanilla.checks.findings import FAULT, OK, WARNING, Finding
from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import CONFIGS

COCO, SEG, CLS = (
    "maskrcnn_vanillanet_shapes.py",
    "upernet_vanillanet_shapes.py",
    "vanillanet_shapes.py",
)
TOOLBOX = {COCO: "mmdet", SEG: "mmseg", CLS: "mmpretrain"}
Change = Callable[[Any], object]


def of(name: str, *values: Any, id: str | None = None) -> Any:
    mark = pytest.mark.toolbox(TOOLBOX[name])
    return pytest.param(name, *values, marks=mark, id=id or TOOLBOX[name])


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


def look(name: str, change: Change = lambda cfg: None, **options: Any) -> list[Finding]:
    cfg = load_config(str(CONFIGS / "shapes" / name))
    use_scope(cfg)
    change(cfg)
    return check_data(cfg, **options)


def wrong(found: list[Finding]) -> str:
    return "\n".join(f"{item.status} {item.subject}: {item}" for item in found if item.status != OK)


def rewrite(data: Path, change: Change, split: str = "train") -> None:
    path = data / "coco" / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def each(key: str, change: Change) -> Change:
    """A change of all annotations or images of a COCO file."""

    def spoil(content: dict[str, Any]) -> None:
        for item in content[key]:
            change(item)

    return spoil


@pytest.mark.parametrize("name", [of(COCO), of(SEG), of(CLS)])
def test_what_fits_is_described(data, name):
    found = look(name)
    assert not wrong(found)
    texts = [item.text for item in found if item.subject == "train data"]
    described = next(text for text in texts if "of 8 images" in text)
    kind = {COCO: "objects (whole split)", SEG: "pixels (samples)", CLS: "images (whole split)"}
    assert kind[name] in described and "circle" in described and "to 255" in described
    assert any(text.startswith("a batch is (4, 3") for text in texts)
    if name == COCO:
        assert any("annotations of" in text and "0 ignored" in text for text in texts)
        assert "48x48" in described


@pytest.mark.parametrize("name", [of(COCO), of(SEG), of(CLS)])
def test_a_picture_shows_the_samples(data, name):
    look(name, show_dir="shown")
    picture = cv2.imread("shown/train.png")
    assert picture is not None and picture.shape[1] > 4 * 48
    if name != CLS:  # four samples side by side, each with something drawn on it
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    assert [path.name for path in Path("shown").iterdir()] == ["train.png"]


def corners(item: dict[str, Any]) -> None:
    x, y, width, height = item["bbox"]
    item["bbox"] = [x, y, x + width, y + height]


COCO_CASES: dict[str, tuple[Change, str, bool]] = {
    "texts as ids": (
        each("annotations", lambda item: item.update(category_id=str(item["category_id"]))),
        "are dropped, as {'id': 1",
        True,
    ),
    "all crowds": (each("annotations", lambda item: item.update(iscrowd=1)), "iscrowd=0", True),
    "boxes from 0 to 1": (
        each("annotations", lambda item: item.update(bbox=[x / 48 for x in item["bbox"]])),
        "are dropped",
        True,
    ),
    "boxes as corners": (each("annotations", corners), "would not as two corners", False),
    "wrong size": (
        each("images", lambda item: item.update(width=24, height=24)),
        "is 48x48, but its annotations are for 24x24",
        True,
    ),
    "width and height exchanged": (
        each("images", lambda item: item.update(width=96)),
        "is 48x48, but its annotations are for 48x96",
        True,
    ),
    "no area": (each("annotations", lambda item: item.pop("area")), "KeyError: 'area'", True),
    "no height": (each("images", lambda item: item.pop("height")), "KeyError: 'height'", True),
    "no masks": (
        each("annotations", lambda item: item.pop("segmentation")),
        ".png: KeyError: 'mask'",
        True,
    ),
    "no category of this name": (
        lambda content: content["categories"][2].update(name="cat"),
        "has the categories circle, square; name classes",
        True,
    ),
    "another order": (
        lambda content: content["categories"].reverse(),
        "has the categories triangle, square, circle",
        True,
    ),
    "a class without annotations": (
        lambda content: content.update(
            annotations=[item for item in content["annotations"] if item["category_id"] != 2]
        ),
        "never seen in this split: square",
        False,
    ),
    "no annotations": (lambda content: content.update(annotations=[]), "no objects", True),
    "an image that is not there": (
        lambda content: content["images"][0].update(file_name="gone.png"),
        "gone.png: FileNotFoundError",
        True,
    ),
    "no images": (lambda content: content.update(images=[], annotations=[]), "no image * in", True),
    "no JSON": (lambda content: content.clear(), "KeyError", True),
}


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize("case", COCO_CASES)
def test_coco(data, case):
    change, text, certain = COCO_CASES[case]
    rewrite(data, change)
    found = [item for item in look(COCO) if item.status == FAULT and text in str(item)]
    assert found and found[0].certain == certain, wrong(look(COCO))
    assert found[0].subject == "train data" and "\n" not in str(found[0])


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize("case", ["texts as ids", "all crowds", "no masks", "another order"])
def test_a_training_sees_it_in_its_first_images(data, case):
    rewrite(data, COCO_CASES[case][0])
    found = look(COCO, images=4, thorough=False)
    assert any(item.certain for item in found)


@pytest.mark.toolbox("mmdet")
def test_a_filter_that_leaves_nothing_is_named_with_the_reason(data):
    def keep_those_with_objects(cfg):
        cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)

    rewrite(data, COCO_CASES["texts as ids"][0])
    text = wrong(look(COCO, keep_those_with_objects))
    assert "filter_cfg leaves none of its images" in text and "'category_id': '" in text


@pytest.mark.toolbox("mmdet")
def test_few_classes_and_few_lost_annotations_are_no_fault(data):
    def two(cfg):
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.metainfo = dict(classes=("circle", "triangle"))

    assert not wrong(look(COCO, two))
    rewrite(data, lambda content: content["annotations"][0].update(category_id=77))
    statuses = {item.status for item in look(COCO) if "are dropped" in item.text}
    assert statuses == {WARNING}


@pytest.mark.toolbox("mmdet")
def test_what_the_evaluation_reads(data):
    rewrite(data, each("annotations", lambda item: item.pop("iscrowd")), "val")
    assert "have no iscrowd, which the evaluation reads" in wrong(look(COCO))

    def elsewhere(cfg):
        cfg.val_evaluator.ann_file = "gone.json"

    assert "val_evaluator: FileNotFoundError" in wrong(look(COCO, elsewhere))


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize("other", ["part", "val"])
def test_categories_in_another_order_elsewhere(data, other):
    """Also with the classes of each in the order of its own file."""
    order = ("triangle", "square", "circle")

    def join(cfg):
        if other == "val":
            cfg.val_dataloader.dataset.metainfo = dict(classes=order)
            return
        first = cfg.train_dataloader.dataset
        second = dict(
            first, ann_file="annotations/instances_val.json", metainfo=dict(classes=order)
        )
        second["data_prefix"] = dict(img="val/")
        node = dict(type="ConcatDataset", datasets=[first, second], ignore_keys=["classes"])
        cfg.train_dataloader.dataset = node

    rewrite(data, lambda content: content["categories"].reverse(), "val")
    for thorough in (True, False):
        found = [item for item in look(COCO, join, thorough=thorough) if item.subject == "classes"]
        text = "triangle, square, circle, and of the train data"
        assert any(text in item.text and item.certain for item in found)


def relabel(data: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in (data / "ade20k" / "annotations" / "training").glob("*.png"):
        cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))


def without_reducing(cfg: Any) -> None:
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.reduce_zero_label = False


def two_classes(cfg: Any) -> None:
    without_reducing(cfg)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.metainfo = dict(classes=("background", "shape"))


def same(cfg: Any) -> None:
    pass


SEG_CASES = {
    "0 and 255": (lambda a: np.where(a > 1, 255, 0), two_classes, "never seen in this split: sha"),
    "reduced from 0": (lambda a: a - 1, same, "% of the pixels are ignored; correct the labels"),
    "half as large": (lambda a: a[::2, ::2], same, "is 24x24, but its image is 48x48"),
    "colours": (lambda a: np.dstack([a] * 3), same, "is 48x48x3, but its image is 48x48"),
    "beyond the classes": (lambda a: a + 2, same, "labels [4, 5] are outside of the 4 classes"),
    "one label": (lambda a: a * 0 + 1, same, "never seen in this split: circle, square, tria"),
    "all ignored": (lambda a: a * 0, same, "no pixels of any class arrive"),
}


@pytest.mark.toolbox("mmseg")
@pytest.mark.parametrize("case", SEG_CASES)
def test_label_maps(data, case):
    labels, change, text = SEG_CASES[case]
    relabel(data, labels)
    found = look(SEG, change)
    assert any(item.status == FAULT and item.subject == "train data" for item in found)
    assert text in wrong(found)


@pytest.mark.toolbox("mmseg")
def test_labels_that_begin_at_0_say_how(data):
    relabel(data, lambda a: a - 1)
    assert "set reduce_zero_label=False if label 0 is a class" in wrong(look(SEG))


@pytest.mark.toolbox("mmseg")
def test_files_of_label_maps(data):
    def suffix(cfg):
        cfg.train_dataloader.dataset.img_suffix = ".jpg"

    assert "no image *.jpg in data/shapes/ade20k/images/training" in wrong(look(SEG, suffix))
    (data / "ade20k" / "annotations" / "training" / "000000.png").unlink()
    assert "images/training/000000.png: FileNotFoundError" in wrong(look(SEG))

    def crop_the_image(cfg):
        cfg.train_dataloader.dataset.pipeline[2] = dict(type="mmcv.Resize", scale=(32, 32))
        cfg.train_dataloader.dataset.pipeline[1:3] = cfg.train_dataloader.dataset.pipeline[2:0:-1]

    shutil.copytree(
        data / "ade20k/annotations/validation",
        data / "ade20k/annotations/training",
        dirs_exist_ok=True,
    )
    assert "annotations are 48x48, but their image is 32x32" in wrong(look(SEG, crop_the_image))


@pytest.mark.toolbox("mmpretrain")
class TestFolders:
    def test_one_is_missing_in_a_split(self, data):
        shutil.rmtree(data / "imagenet" / "val" / "ring")
        found = [item for item in look(CLS) if item.subject == "classes"]
        assert "those of the val data are circle, cross, square" in found[0].text
        assert found[0].certain

    def test_another_number_than_classes(self, data):
        def change(cfg):
            cfg.train_dataloader.dataset.metainfo = dict(classes=["a", "b", "c"])

        assert "(6) doesn't match the number of specified classes (3)" in wrong(look(CLS, change))

    def test_no_folder_has_images(self, data):
        for path in (data / "imagenet" / "train").glob("*/*"):
            path.unlink()
        assert "Found 0 files in subfolders" in wrong(look(CLS))

    def test_an_empty_folder(self, data):
        for path in (data / "imagenet" / "train" / "ring").iterdir():
            path.unlink()
        assert "never seen in this split: ring" in wrong(look(CLS))

    def test_a_broken_image(self, data):
        path = next((data / "imagenet" / "train" / "ring").iterdir())
        path.write_bytes(b"no image")
        assert f"{path.relative_to(data.parents[1])}: " in wrong(look(CLS))


@pytest.mark.parametrize("name", [of(COCO), of(SEG), of(CLS)])
def test_missing_data_come_with_what_to_do(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text = wrong(look(name))
    assert "fault train data: FileNotFoundError" in text and "put the data there" in text


@pytest.mark.toolbox("mmpretrain")
def test_validation_on_the_training_images(data):
    def change(cfg):
        cfg.val_dataloader.dataset.data_root = cfg.train_dataloader.dataset.data_root

    assert "warning val data: it reads the images of the training" in wrong(look(CLS, change))


@pytest.mark.toolbox("mmpretrain")
def test_images_that_make_no_batch(data):
    def change(cfg):
        resize = dict(type="RandomResize", scale=(32, 32), ratio_range=(0.5, 2.0))
        cfg.train_dataloader.dataset.pipeline = [
            dict(type="LoadImageFromFile"),
            resize,
            dict(type="PackInputs"),
        ]

    found = [item for item in look(CLS, change) if item.text.startswith("no batch")]
    assert found and found[0].certain


@pytest.mark.toolbox("mmpretrain")
def test_heads_are_compared_with_the_data(data):
    cfg: Config = load_config(str(CONFIGS / "shapes" / CLS))
    use_scope(cfg)
    for classes, status in ((6, OK), (5, FAULT), (7, WARNING)):
        cfg.model.head.num_classes = classes
        found = check_data(cfg, build_on_meta(cfg))
        kinds = {item.status for item in found if item.subject == "classes"}
        assert kinds == {status} - {OK}
        if classes == 5:
            assert "labels [5] are outside of the 5 classes" in wrong(found)


@pytest.mark.toolbox("mmpretrain")
def test_an_accuracy_of_more_classes_than_there_are(data):
    def change(cfg: Any) -> None:
        cfg.val_evaluator = dict(type="Accuracy", topk=(1, 10))

    cfg = load_config(str(CONFIGS / "shapes" / CLS))
    use_scope(cfg)
    (fault,) = [
        item for item in look(CLS, change, model=build_on_meta(cfg), thorough=False) if item.certain
    ]
    assert fault.subject == "val_evaluator" and "more than the 6 classes" in str(fault)
