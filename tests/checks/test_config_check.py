"""Whole configs: ours pass, all faults are listed, and only certain ones stop a training."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path

import pytest

from mmvanilla.apis.config import load_config
from mmvanilla.checks.config_check import check_config
from mmvanilla.checks.findings import FAULT, OK, WARNING
from mmvanilla.datasets.shapes import make_shapes
from tests.checks.swaps import load, swapped
from tests.configs.test_configs import NAMES, toolbox_of
from tests.helpers import CONFIGS
from tools import train

MASK_RCNN = str(CONFIGS / "shapes" / "maskrcnn_vanillanet_shapes.py")


@pytest.fixture
def shapes(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_shapes("data/shapes", ["coco"], num_train=8, num_val=4, image_size=48)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.toolbox(toolbox_of(name))) for name in NAMES],
)
def test_our_configs_fit_apart_from_their_data(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(str(CONFIGS / name))
    for split in ("train", "val", "test"):
        cfg[f"{split}_dataloader"] = None  # nobody's data are here
    found = check_config(cfg, thorough=False)
    assert not [str(item) for item in found if item.status == FAULT]
    assert not [str(item) for item in found if item.status == WARNING]


@pytest.mark.toolbox("mmdet")
def test_all_faults_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = swapped(load("mmdet", "rtmdet/rtmdet_tiny_8xb32-300e_coco.py"), (0, 1, 2, 3))
    cfg.merge_from_dict(
        {
            "optim_wrapper.constructor": "LayerDecayOptimWrapperConstructor",
            "optim_wrapper.paramwise_cfg": dict(decay_rate=0.6, num_layers=50),
            "load_from": "weights.pth",
        }
    )
    cfg.custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=999)]
    found = check_config(cfg)
    faults = {item.subject for item in found if item.status == FAULT}
    expected = {"custom_imports", "strides", "optimiser", "λ", "weights"}
    assert expected | {"train data", "val data"} <= faults
    assert all(item.remedy and "\n" not in str(item) for item in found if item.status != OK)
    assert not list(tmp_path.iterdir())


@pytest.mark.toolbox("mmdet")
def test_a_model_that_cannot_be_built_hides_nothing_else():
    cfg = load("mmdet", "rtmdet/rtmdet_tiny_8xb32-300e_coco.py")
    cfg.model.backbone.type = "VanillaNet"  # without _delete_=True
    found = check_config(cfg)
    (fault,) = (item for item in found if item.subject == "model")
    assert "expand_ratio" in fault.text and fault.remedy and fault.certain
    assert {"custom_imports", "train data"} <= {x.subject for x in found if x.status == FAULT}


def arguments(options):
    return Namespace(config=MASK_RCNN, cfg_options=options, launcher="none")


@pytest.mark.toolbox("mmdet")
def test_certain_faults_are_refused_in_one_line(shapes):
    wrong = {"model.backbone.out_indices": (1, 2, 3), "model.neck.in_channels": [128, 256, 512]}
    with pytest.raises(ValueError, match="cannot be trained: model.rpn_head is built for") as error:
        train.check(arguments(wrong))
    text = str(error.value)
    assert MASK_RCNN in text and "--no-check" in text and "\n" not in text
    assert "Also: model.roi_head.bbox_roi_extractor" in text
    train.check(arguments(None))


@pytest.mark.toolbox("mmdet")
def test_other_faults_are_logged(shapes, monkeypatch):
    logged = []
    monkeypatch.setattr(train, "print_log", lambda text, **how: logged.append((text, how)))
    train.check(arguments({"model.roi_head.bbox_head.num_classes": 80}))
    assert logged and all(how["level"] == logging.WARNING for _, how in logged)
    assert all("bbox_head.num_classes is 80" in text for text, _ in logged)


@pytest.mark.toolbox("mmdet")
def test_the_tool(run_tool):
    make_shapes("data/shapes", ["coco"], num_train=8, num_val=4, image_size=48)
    status, printed = run_tool("check", MASK_RCNN, "--images", 4, "--show-dir", "shown")
    assert status == 0 and Path("shown/train.png").is_file()
    assert "4 of 8 images" in " ".join(printed.out.split())
    status, printed = run_tool("check", MASK_RCNN, "--cfg-options", "model.neck.out_channels=32")
    assert status == 1 and "fault: channels and levels: model.rpn_head" in printed.out
