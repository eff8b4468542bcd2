"""Garments of Fashion-MNIST in scenes: reading, drawing, and the configs that train on them."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmvanilla.datasets.layouts import label_map
from projects.toy_data import make_garments as tool
from projects.toy_data.fashion_mnist import CLASSES, Photographs, read_photographs
from projects.toy_data.garments import LAYOUTS, make_garments
from projects.toy_data.garments_drawing import Wardrobe, draw_scene
from tests.datasets.test_shapes import check_annotations, digests
from tests.fashion_files import draw_photographs, idx_bytes, write_fashion_mnist
from tests.helpers import ROOT

pytestmark = pytest.mark.exhaustive

CONFIGS = ROOT / "projects" / "toy_data" / "configs"
SMALL = {"num_train": 5, "num_val": 3, "image_size": 64}
IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    return write_fashion_mnist(tmp_path_factory.mktemp("fashion"))


def test_masks_boxes_and_label_maps_agree(photographs, tmp_path):
    numbers = ["--num-train", "5", "--num-val", "3", "--image-size", "64"]
    assert tool.main([str(tmp_path), *numbers, "--source", str(photographs)]) == 0
    assert make_garments(tmp_path, source=photographs, **SMALL) == ()
    check_annotations(tmp_path, "train", "training", CLASSES)
    check_annotations(tmp_path, "val", "validation", CLASSES)
    other = write_fashion_mnist(tmp_path / "other", seed=3)
    with pytest.raises(ValueError, match="is there, made from .*train_photographs"):
        make_garments(tmp_path, source=other, **SMALL)


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
        make_garments(tmp_path / changed, ["coco"], source=mixed, **SMALL)
        before, after = digests(tmp_path / "before"), digests(tmp_path / changed)
        for name in before:
            if name.endswith(".png"):
                assert (before[name] == after[name]) == name.startswith(f"coco/{kept}/"), name


def test_pixels_are_those_of_this_version():
    """Fails when the drawing changes: then raise `RECIPE_VERSION` in garments.py and the digest."""
    wardrobe = Wardrobe.of(Photographs(*draw_photographs(3, seed=0), ""), "test")
    digest = hashlib.sha256()
    for seed in range(8):
        scene = draw_scene(np.random.default_rng(seed), 64, wardrobe)
        digest.update(scene.image.tobytes())
        digest.update(label_map(scene).tobytes())
    assert digest.hexdigest() == "60cf214e9536228ee5abbf29364c43b095eeecc82bc7ac27c00c18905b1105a4"


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        (LABELS, None, FileNotFoundError),
        (LABELS, gzip.compress(b"\0\0\x08\x01\0\0\0\x03ab"), ValueError),
        (IMAGES, gzip.compress(idx_bytes(np.zeros((30, 32, 30)))), ValueError),
        (LABELS, gzip.compress(idx_bytes(np.full(30, 46))), ValueError),
    ],
    ids=["missing", "short", "large", "unknown labels"],  # gzip writes the time into its bytes
)
def test_foreign_files_are_refused_with_a_remedy(tmp_path, name, content, error):
    path = write_fashion_mnist(tmp_path) / f"{name}.gz"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(error, match="apt-get install dataset-fashion-mnist"):
        read_photographs(tmp_path, "test")


@pytest.mark.toolbox("mmdet", "mmseg")
@pytest.mark.parametrize("task", ["maskrcnn", "upernet"])
def test_a_pair_of_configs_differs_in_the_backbone_alone(task):
    ours, theirs = (
        Config.fromfile(CONFIGS / f"{task}_{backbone}_garments.py").to_dict()
        for backbone in ("vanillanet", "resnet")
    )
    assert [hook["type"] for hook in ours.pop("custom_hooks")] == ["DeepTrainingHook"]
    assert ours["model"].pop("backbone")["type"] == "VanillaNet"
    assert theirs["model"].pop("backbone")["type"] == "ResNet"
    for part in ["neck"] if task == "maskrcnn" else ["decode_head", "auxiliary_head"]:
        for cfg in (ours, theirs):
            cfg["model"][part].pop("in_channels")
    assert ours == theirs
    classes = ours["train_dataloader"]["dataset"]["metainfo"]["classes"]
    assert tuple(classes) == (CLASSES if task == "maskrcnn" else ("background", *CLASSES))
    assert LAYOUTS[task == "upernet"] in ours["data_root"]
