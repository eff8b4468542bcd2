"""The drawn shapes: exact annotations, the same pixels for a seed, and whole folders only."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmvanilla.datasets import shapes
from mmvanilla.datasets.layouts import label_map
from mmvanilla.datasets.shapes import (
    CLASSES,
    LAYOUTS,
    SCENE_CLASSES,
    draw_portrait,
    draw_scene,
    make_shapes,
)

SMALL = {"num_train": 13, "num_val": 7, "image_size": 64}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shapes") / "deep" / "er"
    assert make_shapes(root, **SMALL) == LAYOUTS
    return root


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def check_annotations(root: Path, split: str, ade_split: str, classes: tuple[str, ...]) -> None:
    """Compare the masks, boxes and areas of the coco layout with the label maps of ade20k."""
    masks = pytest.importorskip("pycocotools.mask")
    content = json.loads((root / "coco" / "annotations" / f"instances_{split}.json").read_text())
    named = [(one["id"], one["name"]) for one in content["categories"]]
    assert named == list(enumerate(classes, start=1))
    ids = [one["id"] for one in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    for info in content["images"]:
        size = (info["height"], info["width"])
        image = root / "coco" / split / info["file_name"]
        ade_image = root / "ade20k" / "images" / ade_split / info["file_name"]
        assert image.read_bytes() == ade_image.read_bytes()
        assert cv2.imread(str(image), cv2.IMREAD_UNCHANGED).shape == (*size, 3)
        labels = np.ones(size, dtype=np.uint8)
        for one in content["annotations"]:
            if one["image_id"] == info["id"]:
                encoded = masks.frPyObjects(one["segmentation"], *size)
                mask = masks.decode(encoded).astype(bool)
                assert (labels[mask] == 1).all()  # it hides no other one
                assert one["bbox"] == list(cv2.boundingRect(mask.astype(np.uint8)))
                assert one["area"] == mask.sum() > 0 and one["iscrowd"] == 0
                labels[mask] = one["category_id"] + 1
        path = root / "ade20k" / "annotations" / ade_split / info["file_name"]
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), labels)


def test_folder_holds_the_files_of_three_layouts_and_no_others(made):
    expected = {f"{layout}/recipe.json" for layout in LAYOUTS}
    for split, ade_split, count in (("train", "training", 13), ("val", "validation", 7)):
        check_annotations(made, split, ade_split, SCENE_CLASSES)
        expected.add(f"coco/annotations/instances_{split}.json")
        for index in range(count):
            name = f"{index:06d}.png"
            expected.add(f"coco/{split}/{name}")
            expected |= {f"ade20k/{kind}/{ade_split}/{name}" for kind in ("images", "annotations")}
            expected.add(f"imagenet/{split}/{CLASSES[index % len(CLASSES)]}/{name}")
    assert set(digests(made)) == expected
    # The drawn reds are not written as blues.
    scene = draw_scene(np.random.default_rng([0, 0, 0, 0]), 64)
    image = cv2.imread(str(made / "coco" / "train" / "000000.png"))
    np.testing.assert_array_equal(image[..., ::-1], scene.image)


def test_pixels_are_those_of_this_version():
    """Fails when the drawing changes: then raise `RECIPE_VERSION` in shapes.py and this digest."""
    digest = hashlib.sha256()
    for seed in range(8):
        scene = draw_scene(np.random.default_rng(seed), 64)
        portrait = draw_portrait(np.random.default_rng(seed), 64, seed % len(CLASSES))
        for drawn in (scene, portrait):
            digest.update(drawn.image.tobytes())
            digest.update(label_map(drawn).tobytes())
    assert digest.hexdigest() == "2bb9344a939d35758b10d8f862999e03fc1e2bab022686f35e67cb61094fa3cc"


def test_a_larger_set_begins_with_the_smaller_and_another_seed_is_another(made, tmp_path):
    make_shapes(tmp_path / "larger", num_train=15, num_val=8, image_size=64)
    make_shapes(tmp_path / "other", seed=1, **SMALL)
    smaller, larger, other = (
        digests(root) for root in (made, tmp_path / "larger", tmp_path / "other")
    )
    images = [name for name in smaller if name.endswith(".png")]
    assert len(images) == 4 * (13 + 7)
    assert all(smaller[name] == larger[name] != other[name] for name in images)
    different = {smaller[name] for name in images if not name.startswith("ade20k")}
    assert len(different) == 2 * (13 + 7)  # splits and layouts share none


def test_second_call_does_nothing_and_missing_layouts_are_added(tmp_path):
    options = {"num_train": 2, "num_val": 1, "image_size": 32}
    (tmp_path / "imagenet").mkdir()  # an empty folder is filled
    assert make_shapes(tmp_path, layouts=("imagenet",), **options) == ("imagenet",)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "imagenet").rglob("*")}
    assert make_shapes(tmp_path, layouts=("imagenet",), **options) == ()
    assert make_shapes(tmp_path, layouts=("coco", "imagenet"), **options) == ("coco",)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert {path.name for path in tmp_path.iterdir()} == {"coco", "imagenet"}


@pytest.mark.parametrize("name", ["mine.txt", "recipe.json"])
def test_other_files_are_never_replaced(tmp_path, name):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / name).write_text('{"precious": 1}')
    before = digests(tmp_path)
    with pytest.raises(ValueError, match="coco is there, made from .*delete that folder, or"):
        make_shapes(tmp_path, num_train=1, num_val=1, image_size=32)
    assert digests(tmp_path) == before


def test_failure_on_the_way_leaves_no_half_layout(tmp_path, monkeypatch):
    calls = iter([None, None, KeyboardInterrupt()])

    def draw(rng, size):
        if failure := next(calls):
            raise failure
        return draw_scene(rng, size)

    monkeypatch.setattr(shapes, "draw_scene", draw)
    with pytest.raises(KeyboardInterrupt):
        make_shapes(tmp_path / "a" / "b", image_size=32)
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_val": 0}, "num_val is 0, expected at least 1"),
        ({"image_size": 31}, "image_size is 31, expected at least 32"),
        ({"layouts": ["coco", "voc"]}, "expected a list of coco, ade20k, imagenet"),
        ({"layouts": "coco"}, "expected a list of"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_shapes(tmp_path / "new", **options)
    assert list(tmp_path.iterdir()) == []


def test_tool_writes_and_says_so(tmp_path, run_tool):
    options = ["set", "--layouts", "ade20k", "coco", "--num-train", 2, "--num-val", 1]
    status, printed = run_tool("make_shapes", *options, "--image-size", 32)
    assert (status, printed.out) == (0, "set/ade20k: written\nset/coco: written\n")
    status, printed = run_tool("make_shapes", *options, "--image-size", 32)
    assert (status, printed.out) == (0, "set/ade20k: already there\nset/coco: already there\n")
    status, printed = run_tool("make_shapes", *options, "--image-size", 48)
    assert status == 1 and len(printed.err.splitlines()) == 1
