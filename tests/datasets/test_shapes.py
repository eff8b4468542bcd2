"""The drawn shapes: exact annotations, the same pixels for a seed, and whole folders only."""

import hashlib
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmvanilla.datasets import shapes
from mmvanilla.datasets.layouts import coco_annotations, label_map
from mmvanilla.datasets.scenes import Scene, stack
from mmvanilla.datasets.shapes import (
    CLASSES,
    LAYOUTS,
    SCENE_CLASSES,
    draw_portrait,
    draw_scene,
    make_shapes,
)

SMALL = {"num_train": 13, "num_val": 7, "image_size": 64}
# Areas for a circumscribed radius of 1.
AREAS = {
    "circle": math.pi * 0.9**2,
    "square": 1.5**2,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 10 * 0.5 * 0.45 * math.sin(math.pi / 5),
    "cross": 2 * 1.8 * 0.6 - 0.6**2,
    "ring": math.pi * (0.95**2 - 0.55**2),
}


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


def decode_rle(rle: dict) -> np.ndarray:
    values = np.arange(len(rle["counts"])) % 2 == 1
    return np.repeat(values, rle["counts"]).reshape(rle["size"], order="F")


def check_annotations(root: Path, split: str, ade_split: str, classes: tuple[str, ...]) -> None:
    """Compare the masks, boxes and areas of the coco layout with the label maps of ade20k."""
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
                mask = decode_rle(one["segmentation"])
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


@pytest.mark.parametrize("content", [None, "[]", '{"layout": "imagenet"}'])
def test_other_files_are_never_replaced(tmp_path, content):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "mine.txt").write_text("precious")
    if content is not None:
        (tmp_path / "coco" / "recipe.json").write_text(content)
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
        ({"layouts": []}, "expected a list of"),
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


@pytest.mark.parametrize("name", CLASSES)
def test_stencil_covers_the_area_of_its_shape(name):
    x, y = np.meshgrid(np.linspace(-1.2, 1.2, 601), np.linspace(-1.2, 1.2, 601))
    inside = shapes._STENCILS[name](x, y)
    assert np.mean(inside) * 2.4**2 == pytest.approx(AREAS[name], rel=0.01)


def test_stack_puts_the_last_on_top_and_drops_what_is_nearly_hidden():
    below, hidden, top = (np.zeros((8, 8), dtype=bool) for _ in range(3))
    below[0:4, 0:4] = True
    hidden[3:6, 2:6] = True  # 12 pixels, 3 to be seen
    top[2:6, 3:8] = True
    owner, kept = stack([below, hidden, top])
    expected = np.full((8, 8), -1)
    expected[below] = 0
    expected[top] = 1
    assert kept == [0, 2]
    np.testing.assert_array_equal(owner, expected)
    scene = Scene(np.zeros((8, 8, 3), np.uint8), owner, (2, 0))
    np.testing.assert_array_equal(label_map(scene), np.choose(expected + 1, [1, 4, 2]))


def test_a_portrait_is_dominated_by_its_class():
    for label in range(len(CLASSES)):
        for seed in range(5):
            scene = draw_portrait(np.random.default_rng(seed), 64, label)
            counts = np.bincount(scene.owner[scene.owner >= 0])
            assert scene.labels[-1] == label and label not in scene.labels[:-1]
            assert (counts[:-1] < 0.5 * counts[-1]).all()


def test_pycocotools_reads_the_masks():
    mask_utils = pytest.importorskip("pycocotools.mask")
    for one in coco_annotations(draw_scene(np.random.default_rng(3), 128), 1, 1):
        compressed = mask_utils.frPyObjects(one["segmentation"], 128, 128)
        np.testing.assert_array_equal(
            mask_utils.decode(compressed), decode_rle(one["segmentation"])
        )
        assert mask_utils.area(compressed) == one["area"]
        assert mask_utils.toBbox(compressed).tolist() == one["bbox"]
