"""Whole configs: ours all pass, all faults are listed, and only certain ones stop a training."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from mmengine.config import Config

from mmvanilla.apis.config import load_config
from mmvanilla.checks.config_check import check_config, quick_check, refuse_certain_faults
from mmvanilla.checks.findings import FAULT, OK, WARNING
from tests.checks.swaps import load, swapped
from tests.configs.test_configs import NAMES, toolbox_of
from tests.helpers import CONFIGS

WRONG = """
_base_ = {base!r}
model = dict(backbone=dict(out_indices=(1, 2, 3)), neck=dict(in_channels=[128, 256, 512]))
"""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.toolbox(toolbox_of(name))) for name in NAMES],
)
def test_our_configs_pass(name):
    found = quick_check(load_config(str(CONFIGS / name)))
    assert not [str(item) for item in found if item.status == FAULT]
    subjects = {"channels and levels"}
    if "pure_python/" not in name:  # those import what they use
        subjects.add("custom_imports")
    assert subjects <= {item.subject for item in found}
    # Small detectors and segmenters on shapes are trained from scratch, and without deep training.
    warned = {item.subject for item in found if item.status == WARNING}
    assert warned <= ({"λ"} if "shapes/" in name else set())


@pytest.mark.toolbox("mmdet")
def test_all_faults_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = swapped(load("mmdet", "rtmdet/rtmdet_tiny_8xb32-300e_coco.py"), (0, 1, 2, 3))
    cfg.merge_from_dict(
        {
            "model.bbox_head.num_classes": 7,
            "optim_wrapper.constructor": "LayerDecayOptimWrapperConstructor",
            "optim_wrapper.paramwise_cfg": dict(decay_rate=0.6, num_layers=50),
            "load_from": "weights.pth",
        }
    )
    cfg.custom_hooks = [dict(type="NoSuchHook"), dict(type="DeepTrainingHook", decay_epochs=999)]
    found = check_config(cfg)
    faults = {item.subject for item in found if item.status == FAULT}
    assert faults == {
        "custom_imports",
        "types",
        "strides",
        "classes",
        "layer decay",
        "λ",
        "data",
        "weights",
    }
    assert all(item.remedy and "\n" not in str(item) for item in found if item.status != OK)
    assert not list(tmp_path.iterdir())


@pytest.mark.toolbox("mmdet")
def test_a_model_that_cannot_be_built_hides_nothing_else():
    cfg = load("mmdet", "rtmdet/rtmdet_tiny_8xb32-300e_coco.py")
    cfg.model.backbone.type = "VanillaNet"  # without _delete_=True
    found = check_config(cfg)
    (fault,) = (item for item in found if item.subject == "model")
    assert "VanillaNet does not take" in fault.text and "_delete_=True" in fault.remedy
    assert {"custom_imports", "data"} <= {item.subject for item in found if item.status == FAULT}


@pytest.mark.toolbox("mmdet")
def test_a_teacher_is_not_fetched():
    cfg = load("mmdet", "lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py")
    assert "http" in cfg.model.teacher_ckpt  # tests have no network
    assert not [item for item in quick_check(cfg) if item.status == FAULT]


def write(folder: Path, text: str) -> str:
    base = str(CONFIGS / "shapes" / "maskrcnn_vanillanet_shapes.py")
    path = folder / "config.py"
    path.write_text(text.format(base=base))
    return str(path)


@pytest.mark.toolbox("mmdet")
def test_certain_faults_are_refused_in_one_line(tmp_path):
    path = write(tmp_path, WRONG)
    with pytest.raises(ValueError, match="cannot be trained: model.rpn_head is built for") as error:
        refuse_certain_faults(path)
    text = str(error.value)
    assert path in text and "--no-check" in text and "\n" not in text
    assert "Also: model.roi_head.bbox_roi_extractor" in text
    refuse_certain_faults(
        path,
        {"model.backbone.out_indices": (0, 1, 2, 3), "model.neck.in_channels": [64, 128, 256, 512]},
    )


@pytest.mark.toolbox("mmdet")
def test_other_faults_are_logged(tmp_path, monkeypatch):
    path = write(tmp_path, "_base_ = {base!r}\n")
    options = {"model.roi_head.bbox_head.num_classes": 80}
    logged = []
    monkeypatch.setattr(
        "mmvanilla.checks.config_check.print_log", lambda text, **how: logged.append((text, how))
    )
    refuse_certain_faults(path, options)
    assert logged and all(how["level"] == logging.WARNING for _, how in logged)
    assert all("bbox_head.num_classes is 80" in text for text, _ in logged)
    monkeypatch.setenv("RANK", "1")
    logged.clear()
    refuse_certain_faults(path, options, "pytorch")
    assert not logged


@pytest.mark.toolbox("mmpretrain")
def test_pure_python_configs(tmp_path):
    path = tmp_path / "lazy.py"
    path.write_text(
        "from mmpretrain.models import ImageClassifier, GlobalAveragePooling, LinearClsHead\n"
        "from mmvanilla import VanillaNet, DeepTrainingHook\n"
        "model = dict(type=ImageClassifier, backbone=dict(type=VanillaNet, arch='6', "
        "width_mult=1 / 64, out_indices=(-1,)), neck=dict(type=GlobalAveragePooling), "
        "head=dict(type=LinearClsHead, num_classes=5, in_channels=63))\n"
        "custom_hooks = [dict(type=DeepTrainingHook, decay_epochs=9)]\n"
        "train_cfg = dict(by_epoch=True, max_epochs=9)\n"
    )
    cfg = Config.fromfile(str(path), lazy_import=True)
    cfg.default_scope = None
    found = check_config(cfg)
    faults = {item.subject: item for item in found if item.status == FAULT}
    assert faults["channels and levels"].remedy == "set model.head.in_channels=64"
    assert set(faults) == {"channels and levels", "λ"}
