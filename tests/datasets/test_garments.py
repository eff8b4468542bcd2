import hashlib
import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmvanilla.datasets import fashion_mnist, garments
from mmvanilla.datasets.fashion_mnist import CLASSES
from mmvanilla.datasets.garments import LAYOUTS, PALETTE, SEG_CLASSES, SEG_PALETTE, make_garments
from mmvanilla.datasets.shapes import make_shapes
from tests.fashion_files import write_fashion_mnist
from tests.helpers import ROOT

TOOL = ROOT / "tools" / "make_garments.py"
SMALL = {"num_train": 5, "num_val": 3, "image_size": 64}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    return write_fashion_mnist(tmp_path_factory.mktemp("fashion"))


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("garments") / "new"
    assert make_garments(root, source=photographs, **SMALL) == LAYOUTS
    return root


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def tool(run_tool):
    """The tool; it returns the exit status, what it printed, and its errors."""

    def call(*arguments):
        status, printed = run_tool("make_garments", *arguments)
        return status, printed.out, printed.err

    return call


def test_folder_holds_the_files_of_two_layouts_and_no_others(made):
    train = {f"{index:06d}.png" for index in range(5)}
    val = {f"{index:06d}.png" for index in range(3)}
    expected = {"coco/recipe.json", "ade20k/recipe.json"}
    expected |= {f"coco/annotations/instances_{split}.json" for split in ("train", "val")}
    for split, ade_split, names in (("train", "training", train), ("val", "validation", val)):
        expected |= {f"coco/{split}/{name}" for name in names}
        for kind in ("images", "annotations"):
            expected |= {f"ade20k/{kind}/{ade_split}/{name}" for name in names}
    assert set(digests(made)) == expected


@pytest.mark.parametrize(("split", "ade_split"), [("train", "training"), ("val", "validation")])
def test_masks_boxes_and_label_maps_agree(made, split, ade_split):
    path = made / "coco" / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    assert [one["name"] for one in content["categories"]] == list(CLASSES)
    assert [one["id"] for one in content["categories"]] == list(range(1, 11))
    for info in content["images"]:
        labels = np.ones((64, 64), dtype=np.uint8)
        covered = np.zeros((64, 64), dtype=int)
        annotations = [one for one in content["annotations"] if one["image_id"] == info["id"]]
        assert 1 <= len(annotations) <= 7
        for one in annotations:
            counts = one["segmentation"]["counts"]
            mask = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(64, 64, order="F")
            ys, xs = np.nonzero(mask)
            left, top = xs.min(), ys.min()
            assert one["bbox"] == [left, top, xs.max() - left + 1, ys.max() - top + 1]
            assert one["area"] == mask.sum() > 0
            covered += mask
            labels[mask] = one["category_id"] + 1
        assert covered.max() == 1
        path = made / "ade20k" / "annotations" / ade_split / info["file_name"]
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), labels)


def test_each_split_shows_garments_of_its_own_photographs(photographs, tmp_path):
    """A change of the test photographs changes the validation images only, and the other way."""
    other = write_fashion_mnist(tmp_path / "other", seed=7)
    make_garments(tmp_path / "before", ["coco"], source=photographs, **SMALL)
    for changed, kept in (("t10k", "train"), ("train", "val")):
        mixed = tmp_path / f"mixed_{changed}"
        mixed.mkdir()
        for path in photographs.iterdir():
            origin = other if path.name.startswith(changed) else photographs
            (mixed / path.name).write_bytes((origin / path.name).read_bytes())
        root = tmp_path / f"after_{changed}"
        make_garments(root, ["coco"], source=mixed, **SMALL)
        before, after = digests(tmp_path / "before"), digests(root)
        for name in before:
            if name.endswith(".png"):
                assert (before[name] == after[name]) == name.startswith(f"coco/{kept}/"), name


def test_same_seed_same_bytes_and_compression_of_the_source_is_no_matter(made, tmp_path):
    plain = write_fashion_mnist(tmp_path / "plain", compressed=False)
    make_garments(tmp_path / "again", source=plain, **SMALL)
    assert digests(tmp_path / "again") == digests(made)
    make_garments(tmp_path / "seed1", source=plain, seed=1, **SMALL)
    again, other = digests(tmp_path / "again"), digests(tmp_path / "seed1")
    assert all(again[name] != other[name] for name in again if name.endswith(".png"))


def test_a_larger_set_begins_with_the_smaller(made, photographs, tmp_path):
    make_garments(tmp_path, source=photographs, num_train=7, num_val=4, image_size=64)
    smaller, larger = digests(made), digests(tmp_path)
    assert all(smaller[name] == larger[name] for name in smaller if name.endswith(".png"))


def test_other_photographs_are_another_recipe(photographs, tmp_path):
    options = dict(layouts=["coco"], num_train=1, num_val=1, image_size=64)
    make_garments(tmp_path / "set", source=photographs, **options)
    assert make_garments(tmp_path / "set", source=photographs, **options) == ()
    other = write_fashion_mnist(tmp_path / "other", seed=3)
    with pytest.raises(ValueError, match="was made with train_photographs=") as caught:
        make_garments(tmp_path / "set", source=other, **options)
    assert f"--layouts coco --source {other} --overwrite`" in str(caught.value)
    assert make_garments(tmp_path / "set", source=other, overwrite=True, **options) == ("coco",)


def test_shapes_and_garments_do_not_replace_each_other(photographs, tmp_path):
    numbers = dict(num_train=1, num_val=1, image_size=64)
    make_shapes(tmp_path / "shapes", ["coco"], **numbers)
    with pytest.raises(ValueError, match="make_garments did not make it"):
        make_garments(tmp_path / "shapes", ["coco"], source=photographs, overwrite=True, **numbers)
    make_garments(tmp_path / "garments", ["coco"], source=photographs, **numbers)
    with pytest.raises(ValueError, match="make_shapes did not make it"):
        make_shapes(tmp_path / "garments", ["coco"], overwrite=True, **numbers)


def test_palettes_fit_their_classes():
    assert len(PALETTE) == len(CLASSES) and len(set(SEG_PALETTE)) == len(SEG_CLASSES) == 11


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layouts": ["imagenet"]}, ValueError, "unknown layout 'imagenet'; choose from coco, ade"),
        ({"image_size": 63}, ValueError, "image_size is 63, expected at least 64"),
        ({"num_train": 0}, ValueError, "num_train is 0, expected at least 1"),
        ({"seed": 1.5}, TypeError, "seed is 1.5, expected a whole number"),
        ({"num_val": 10**12}, OSError, "images of 96x96 take about"),
        ({"source": "nowhere"}, FileNotFoundError, "no folder nowhere with Fashion-MNIST"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    photographs, tmp_path, options, error, message
):
    with pytest.raises(error, match=message):
        make_garments(tmp_path / "new", **{"source": photographs, **options})
    assert list(tmp_path.iterdir()) == []


def test_tool_writes_reports_and_does_nothing_twice(photographs, tmp_path, tool):
    args = ["set", "--num-train", 2, "--num-val", 1, "--image-size", 64, "--source", photographs]
    status, out, err = tool(*args)
    assert (status, err) == (0, "")
    assert "set/coco: 2 training and 1 validation images of 64x64, seed 0" in out
    status, out, err = tool(*args)
    assert out.splitlines() == [f"set/{layout}: already there, nothing to do" for layout in LAYOUTS]
    status, _, err = tool(*args, "--seed", 3)
    assert (status, len(err.splitlines())) == (1, 1)
    assert f"--seed 3 --source {photographs} --overwrite`" in err


def test_tool_without_photographs_names_the_command_that_gets_them(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "FOLDERS", ("data/fashion_mnist", str(tmp_path / "none")))
    status, _, err = tool("set")
    assert status == 1 and len(err.splitlines()) == 1
    assert err.startswith("error: no Fashion-MNIST in data/fashion_mnist or ")
    assert "apt-get install dataset-fashion-mnist" in err
    assert list(tmp_path.iterdir()) == []


def test_the_tool_and_the_function_have_the_same_defaults():
    parsed = vars(runpy.run_path(str(TOOL))["build_parser"]().parse_args([]))
    defaults = make_garments.__kwdefaults__ or {}
    names = make_garments.__code__.co_varnames[: make_garments.__code__.co_argcount]
    defaults |= dict(zip(names[::-1], make_garments.__defaults__[::-1], strict=False))
    for name in ("num_train", "num_val", "image_size", "seed", "source", "overwrite"):
        assert parsed[name] == defaults[name], name
    assert garments.RECIPE_VERSION == 1
