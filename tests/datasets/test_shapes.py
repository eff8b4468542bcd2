import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mmvanilla.datasets import making, shapes
from mmvanilla.datasets.shapes import (
    LAYOUTS,
    SCENE_PALETTE,
    SEG_CLASSES,
    SEG_PALETTE,
    make_shapes,
)
from mmvanilla.datasets.shapes_drawing import CLASSES, SCENE_CLASSES, draw_scene
from tests.helpers import ROOT

TOOL = ROOT / "tools" / "make_shapes.py"
SMALL = {"num_train": 13, "num_val": 7, "image_size": 64}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shapes") / "deep" / "er"
    assert make_shapes(root, **SMALL) == LAYOUTS
    return root


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def read_coco(root: Path, split: str) -> dict:
    return json.loads((root / "coco" / "annotations" / f"instances_{split}.json").read_text())


def decode_rle(rle: dict) -> np.ndarray:
    values = np.arange(len(rle["counts"])) % 2 == 1
    return np.repeat(values, rle["counts"]).reshape(rle["size"], order="F")


def run_tool(*args: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(TOOL), *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture
def tool(run_tool):
    """The tool; it returns the exit status, what it printed, and its errors."""

    def call(*arguments):
        status, printed = run_tool("make_shapes", *arguments)
        return status, printed.out, printed.err

    return call


# ---- what is written


def test_folder_holds_the_files_of_three_layouts_and_no_others(made):
    names = {f"{index:06d}.png" for index in range(13)}
    val_names = {f"{index:06d}.png" for index in range(7)}
    assert {path.name for path in made.iterdir()} == set(LAYOUTS)
    assert {path.name for path in (made / "coco" / "train").iterdir()} == names
    assert {path.name for path in (made / "coco" / "val").iterdir()} == val_names
    for kind in ("images", "annotations"):
        assert {path.name for path in (made / "ade20k" / kind / "training").iterdir()} == names
        assert {path.name for path in (made / "ade20k" / kind / "validation").iterdir()} == (
            val_names
        )
    for split, expected in (("train", names), ("val", val_names)):
        folders = sorted((made / "imagenet" / split).iterdir())
        assert [folder.name for folder in folders] == sorted(CLASSES)
        assert {path.name for folder in folders for path in folder.iterdir()} == expected
    annotations = {path.name for path in (made / "coco" / "annotations").iterdir()}
    assert annotations == {"instances_train.json", "instances_val.json"}


@pytest.mark.parametrize(("split", "ade_split"), [("train", "training"), ("val", "validation")])
def test_coco_annotations_agree_with_images_and_label_maps(made, split, ade_split):
    content = read_coco(made, split)
    assert [one["name"] for one in content["categories"]] == list(SCENE_CLASSES)
    assert [one["id"] for one in content["categories"]] == [1, 2, 3]
    ids = [one["id"] for one in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    for info in content["images"]:
        image_bytes = (made / "coco" / split / info["file_name"]).read_bytes()
        ade_image = made / "ade20k" / "images" / ade_split / info["file_name"]
        assert image_bytes == ade_image.read_bytes()
        image = cv2.imdecode(np.frombuffer(image_bytes, np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.shape == (info["height"], info["width"], 3) == (64, 64, 3)

        labels = np.ones((64, 64), dtype=np.uint8)
        covered = np.zeros((64, 64), dtype=int)
        annotations = [one for one in content["annotations"] if one["image_id"] == info["id"]]
        assert 1 <= len(annotations) <= 5
        for one in annotations:
            mask = decode_rle(one["segmentation"])
            ys, xs = np.nonzero(mask)
            left, top = xs.min(), ys.min()
            assert one["bbox"] == [left, top, xs.max() - left + 1, ys.max() - top + 1]
            assert one["area"] == mask.sum() > 0
            assert one["iscrowd"] == 0
            covered += mask
            labels[mask] = one["category_id"] + 1
        assert covered.max() == 1
        path = made / "ade20k" / "annotations" / ade_split / info["file_name"]
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), labels)


def test_image_files_are_rgb_to_their_readers(made):
    """The drawn reds are not written as blues."""
    scene = draw_scene(np.random.default_rng([0, 0, 0, 0]), 64)
    image = cv2.imread(str(made / "coco" / "train" / "000000.png"))
    np.testing.assert_array_equal(image[..., ::-1], scene.image)


def test_imagenet_classes_take_turns(made):
    for name in CLASSES:
        found = sorted(path.name for path in (made / "imagenet" / "train" / name).iterdir())
        assert found == [f"{index:06d}.png" for index in range(CLASSES.index(name), 13, 6)]


def test_palettes_fit_their_classes():
    assert len(SCENE_PALETTE) == len(SCENE_CLASSES)
    assert len(SEG_PALETTE) == len(SEG_CLASSES) == len(SCENE_CLASSES) + 1
    assert len(set(SEG_PALETTE)) == len(SEG_PALETTE)


# ---- same seed, same bytes


def test_same_seed_gives_the_same_bytes_in_another_process(made, tmp_path):
    result = run_tool(
        tmp_path / "again", "--num-train", 13, "--num-val", 7, "--image-size", 64, "--seed", 0
    )
    assert result.returncode == 0, result.stderr
    assert digests(tmp_path / "again") == digests(made)


def test_another_seed_gives_other_images(made, tmp_path):
    make_shapes(tmp_path, seed=1, **SMALL)
    before, after = digests(made), digests(tmp_path)
    images = [name for name in before if name.endswith(".png")]
    assert set(before) == set(after)
    assert all(before[name] != after[name] for name in images)


def test_splits_and_layouts_share_no_images(made):
    found = digests(made)
    images = [
        digest
        for name, digest in found.items()
        if name.endswith(".png") and not name.startswith("ade20k")
    ]
    assert len(set(images)) == len(images) == 2 * (13 + 7)


def test_a_larger_set_begins_with_the_smaller(made, tmp_path):
    make_shapes(tmp_path, num_train=15, num_val=8, image_size=64)
    smaller, larger = digests(made), digests(tmp_path)
    images = [name for name in smaller if name.endswith(".png")]
    assert len(images) == 4 * (13 + 7)
    assert all(smaller[name] == larger[name] for name in images)
    for split in ("train", "val"):
        annotations = read_coco(made, split)["annotations"]
        assert read_coco(tmp_path, split)["annotations"][: len(annotations)] == annotations


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_alone_is_as_among_the_others(made, tmp_path, layout):
    assert make_shapes(tmp_path, layouts=[layout], **SMALL) == (layout,)
    assert digests(tmp_path) == {
        name: digest for name, digest in digests(made).items() if name.startswith(layout)
    }


# ---- made once, never half, never over other people's files


def test_second_call_does_nothing_and_missing_layouts_are_added(tmp_path):
    drawn = []

    def progress(tasks):
        for task in tasks:
            drawn.append(task)
            yield task

    options = {"num_train": 2, "num_val": 1, "image_size": 32, "progress": progress}
    assert make_shapes(tmp_path, layouts=("imagenet",), **options) == ("imagenet",)
    assert len(drawn) == 3
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert make_shapes(tmp_path, layouts=("imagenet",), **options) == ()
    assert make_shapes(tmp_path, layouts=("coco", "imagenet"), **options) == ("coco",)
    assert len(drawn) == 6
    assert all(path.stat().st_mtime_ns == time for path, time in times.items() if path != tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"coco", "imagenet"}


def test_another_recipe_is_refused_or_overwritten(tmp_path):
    options = {"layouts": ["coco"], "num_train": 3, "num_val": 1, "image_size": 32}
    make_shapes(tmp_path, **options)
    before = digests(tmp_path)
    with pytest.raises(ValueError, match=r"made with num_train=3, but num_train=2 .*") as caught:
        make_shapes(tmp_path, **{**options, "num_train": 2})
    assert f"make_shapes {tmp_path} --layouts coco --num-train 2 --overwrite`" in str(
        caught.value
    ).replace("tools/make_shapes.py", "make_shapes")
    assert digests(tmp_path) == before
    assert make_shapes(tmp_path, **{**options, "num_train": 2}, overwrite=True) == ("coco",)
    assert {path.name for path in tmp_path.iterdir()} == {"coco"}
    assert len(list((tmp_path / "coco" / "train").iterdir())) == 2


@pytest.mark.parametrize("content", [None, "no json", "[]", '{"layout": "imagenet"}'])
def test_a_folder_of_others_is_never_replaced(tmp_path, content):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "mine.txt").write_text("precious")
    if content is not None:
        (tmp_path / "coco" / "recipe.json").write_text(content)
    before = digests(tmp_path)
    with pytest.raises(ValueError, match="make_shapes did not make it"):
        make_shapes(tmp_path, num_train=1, num_val=1, image_size=32, overwrite=True)
    assert digests(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"coco"}


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "coco").mkdir()
    made = make_shapes(tmp_path, layouts=["coco"], num_train=1, num_val=1, image_size=32)
    assert made == ("coco",)
    assert (tmp_path / "coco" / "recipe.json").is_file()


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_failure_on_the_way_leaves_nothing(tmp_path, error):
    def progress(tasks):
        yield from tasks[:2]
        raise error

    with pytest.raises(type(error)):
        make_shapes(tmp_path / "a" / "b", image_size=32, progress=progress)
    assert list(tmp_path.iterdir()) == []


def test_failed_overwrite_keeps_what_was_there(tmp_path, monkeypatch):
    options = {"layouts": ["coco"], "num_val": 1, "image_size": 32}
    make_shapes(tmp_path, num_train=1, **options)
    before = digests(tmp_path)
    rename = Path.rename

    def failing(self, target):
        if Path(target) == tmp_path / "coco" and not self.name.startswith("old-"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        make_shapes(tmp_path, num_train=2, overwrite=True, **options)
    assert digests(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"coco"}


def test_another_process_that_was_faster_is_respected(tmp_path):
    options = {"layouts": ["coco"], "num_train": 2, "num_val": 1, "image_size": 32}

    def progress(tasks):
        yield from tasks
        make_shapes(tmp_path, **options)  # the other one ends just before

    assert make_shapes(tmp_path, progress=progress, **options) == ("coco",)
    assert {path.name for path in tmp_path.iterdir()} == {"coco"}


BAD = [
    ({"num_train": -1}, ValueError, "num_train is -1, expected at least 1"),
    ({"num_val": 0}, ValueError, "num_val is 0, expected at least 1"),
    ({"image_size": 31}, ValueError, "image_size is 31, expected at least 32"),
    (
        {"image_size": 999999999},
        ValueError,
        "image_size is 999999999, expected at most 4096",
    ),
    ({"num_train": 10**15}, OSError, r"3\d+ images of 128x128 take about .* GB free: make fewer"),
    ({"num_val": 10**12}, OSError, r"images of 128x128 take about"),
    ({"seed": -5}, ValueError, "seed is -5, expected at least 0"),
    ({"num_train": 2.5}, TypeError, "num_train is 2.5, expected a whole number"),
    ({"layouts": ["coco", "voc"]}, ValueError, "unknown layout 'voc'; choose from coco"),
    ({"layouts": []}, ValueError, "layouts is empty"),
    ({"layouts": "coco"}, TypeError, "expected a sequence"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        make_shapes(tmp_path / "new", **options)
    assert list(tmp_path.iterdir()) == []


# ---- the tool, as a user runs it


def test_tool_writes_reports_and_does_nothing_twice(tmp_path, tool):
    args = ["set", "--layouts", "ade20k", "coco", "--num-train", "2", "--num-val", "1"]
    status, out, err = tool(*args, "--image-size", "32")
    assert (status, err) == (0, "")
    assert "set/coco: 2 training and 1 validation images of 32x32, seed 0" in out
    before = digests(tmp_path)
    status, out, err = tool(*args, "--image-size", "32")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "set/coco: already there, nothing to do",
        "set/ade20k: already there, nothing to do",
    ]
    status, out, err = tool(*args, "--image-size", "48")
    assert (status, len(err.splitlines())) == (1, 1)
    assert digests(tmp_path) == before
    status, out, err = tool(*args, "--image-size", "48", "--overwrite")
    assert (status, err) == (0, "")
    assert cv2.imread(str(tmp_path / "set" / "coco" / "val" / "000000.png")).shape == (48, 48, 3)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["set", "--num-train", "-3"], "error: num_train is -3, expected at least 1"),
        (["set", "--image-size", "16"], "error: image_size is 16, expected at least 32"),
        (["set", "--layouts", "voc"], "error: unknown layout 'voc'; choose from"),
        (["file/set"], "error: "),  # below a file: as unwritable as it gets, for root too
    ],
)
def test_tool_fails_in_one_line_and_leaves_nothing(tmp_path, tool, args, message):
    (tmp_path / "file").write_text("not a folder")
    status, _, err = tool(*args)
    assert status == 1
    assert err.startswith(message)
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tool_shows_the_traceback_on_demand(tool):
    status, _, err = tool("set", "--seed", "-1", "--debug")
    assert status == 1 and "Traceback" in err
    assert err.splitlines()[-1] == "error: seed is -1, expected at least 0"


def test_the_room_asked_for_is_about_what_the_images_take(made, tmp_path, monkeypatch):
    taken = sum(path.stat().st_size for path in made.rglob("*.png"))
    disk = SimpleNamespace(free=taken // 2)
    monkeypatch.setattr(making.shutil, "disk_usage", lambda folder: disk)
    with pytest.raises(OSError, match="GB free"):
        make_shapes(tmp_path / "new", **SMALL)
    disk.free = taken
    assert make_shapes(tmp_path / "new", **SMALL) == LAYOUTS


def test_too_little_memory_is_said_in_words_and_leaves_nothing(tmp_path, monkeypatch):
    def no_memory(rng, size):
        raise MemoryError("Unable to allocate")

    monkeypatch.setattr(shapes, "draw_scene", no_memory)
    with pytest.raises(RuntimeError, match="not enough memory to draw 64x64 .*smaller image_size"):
        make_shapes(tmp_path / "new", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_failing_tool_tells_the_shell(tmp_path):
    result = run_tool("set", "--seed", "-1", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["error: seed is -1, expected at least 0"]
    assert list(tmp_path.iterdir()) == []


# ---- the toolboxes read it


def test_perfect_predictions_score_one_in_pycocotools(made):
    coco_module = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    truth = coco_module.COCO(str(made / "coco" / "annotations" / "instances_val.json"))
    found = [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "bbox": one["bbox"],
            "segmentation": truth.annToRLE(one),
            "score": 0.9,
        }
        for one in truth.anns.values()
    ]
    for kind in ("bbox", "segm"):
        results = [
            {key: value for key, value in one.items() if kind == "segm" or key != "segmentation"}
            for one in found
        ]
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1.0)


def test_mmdet_reads_boxes_and_masks(made):
    pytest.importorskip("mmcv.ops", reason="mmdet needs mmcv with its ops")
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    from mmcv.transforms import LoadImageFromFile
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    dataset = CocoDataset(
        data_root=str(made / "coco"),
        ann_file="annotations/instances_train.json",
        data_prefix={"img": "train/"},
        metainfo={"classes": SCENE_CLASSES, "palette": SCENE_PALETTE},
        filter_cfg={"filter_empty_gt": True, "min_size": 1},
        pipeline=[LoadImageFromFile(), LoadAnnotations(with_bbox=True, with_mask=True)],
    )
    assert len(dataset) == 13
    annotations = read_coco(made, "train")["annotations"]
    for sample in dataset:
        expected = [one for one in annotations if one["image_id"] == sample["img_id"]]
        assert len(sample["gt_masks"]) == len(expected) == len(sample["gt_bboxes"])
        for mask, one in zip(sample["gt_masks"].masks, expected, strict=True):
            np.testing.assert_array_equal(mask, decode_rle(one["segmentation"]))
        assert sample["gt_bboxes_labels"].tolist() == [one["category_id"] - 1 for one in expected]


def test_mmseg_reads_labels_without_void(made):
    pytest.importorskip("mmcv", reason="mmcv is not installed")
    pytest.importorskip("mmseg", reason="mmseg is not installed")
    from mmcv.transforms import LoadImageFromFile
    from mmseg.datasets import BaseSegDataset
    from mmseg.datasets.transforms import LoadAnnotations

    dataset = BaseSegDataset(
        data_root=str(made / "ade20k"),
        data_prefix={"img_path": "images/training", "seg_map_path": "annotations/training"},
        img_suffix=".png",
        reduce_zero_label=True,
        metainfo={"classes": SEG_CLASSES, "palette": SEG_PALETTE},
        pipeline=[LoadImageFromFile(), LoadAnnotations()],
    )
    assert len(dataset) == 13
    for sample in dataset:
        name = Path(sample["img_path"]).name
        path = made / "ade20k" / "annotations" / "training" / name
        written = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(sample["gt_seg_map"], written - 1)
        assert sample["gt_seg_map"].max() < len(SEG_CLASSES)


def test_mmpretrain_reads_folders_as_classes(made):
    pytest.importorskip("mmcv", reason="mmcv is not installed")
    pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
    from mmpretrain.datasets import CustomDataset, ImageNet

    for dataset in (
        CustomDataset(data_root=str(made / "imagenet"), data_prefix="train", with_label=True),
        ImageNet(
            data_root=str(made / "imagenet"),
            split="train",
            metainfo={"classes": tuple(sorted(CLASSES))},
        ),
    ):
        assert list(dataset.CLASSES) == sorted(CLASSES)
        assert len(dataset) == 13
        for index in range(13):
            info = dataset.get_data_info(index)
            assert dataset.CLASSES[info["gt_label"]] == Path(info["img_path"]).parent.name
