"""Wrong levels are found: heads that get maps of other strides than they were built for."""

from __future__ import annotations

import copy

import pytest
from mmengine.config import Config

from mmvanilla import VanillaNet
from mmvanilla.apis.model import build_on_meta
from mmvanilla.checks.findings import FAULT, OK, WARNING, Finding
from mmvanilla.checks.forward import run_parts
from mmvanilla.checks.model_check import check_model
from mmvanilla.checks.strides import check_strides
from mmvanilla.utils.dependencies import has_toolbox
from tests.checks.swaps import LARGE, configs_of, families, load, natural_levels, swapped

pytestmark = pytest.mark.toolbox("mmdet")

FASTER = "_base_/models/faster-rcnn_r50_fpn.py"
RTMDET = "rtmdet/rtmdet_tiny_8xb32-300e_coco.py"
YOLOX = "yolox/yolox_tiny_8xb8-300e_coco.py"
DINO = "dino/dino-4scale_r50_8xb2-12e_coco.py"
FOUR, THREE = (0, 1, 2, 3), (1, 2, 3)
FAMILIES = list(families("mmdet")) if has_toolbox("mmdet") else []


def findings(cfg: Config, thorough: bool = False) -> list[Finding]:
    return check_model(cfg, build_on_meta(cfg), thorough=thorough)


def faults(cfg: Config, thorough: bool = False) -> list[Finding]:
    return [item for item in findings(cfg, thorough) if item.status == FAULT]


# Right levels, and wrong ones that train without an error.
SILENT = {
    "rtmdet": (RTMDET, THREE, FOUR),
    "yolox": (YOLOX, THREE, FOUR),
    "faster": (FASTER, FOUR, THREE),
    "retinanet": ("_base_/models/retinanet_r50_fpn.py", FOUR, THREE),
    "cascade": ("_base_/models/cascade-mask-rcnn_r50_fpn.py", FOUR, THREE),
    "solo": ("solo/solo_r50_fpn_1x_coco.py", FOUR, THREE),
}


@pytest.mark.parametrize("name", SILENT)
def test_right_levels_fit_and_wrong_ones_are_found_with_their_remedy(name):
    config, right, wrong = SILENT[name]
    cfg = load("mmdet", config)
    assert natural_levels(cfg) == right
    assert {item.status for item in findings(swapped(cfg, right))} == {OK}
    found = faults(swapped(cfg, wrong))
    assert found and all(item.certain and item.subject == "strides" for item in found)
    channels = [8, 16, 32, 64][4 - len(right) :]
    remedy = f"set model.backbone.out_indices={right} and model.neck.in_channels={channels}"
    assert {item.remedy for item in found} == {remedy}


def test_the_words_for_the_level_that_a_zip_drops():
    (found,) = faults(swapped(load("mmdet", RTMDET), FOUR))
    assert "model.bbox_head is built for maps of the strides 8, 16, 32" in found.text
    assert "gets 4, 8, 16, 32, 4 maps for 3 strides" in found.text


def test_a_transformer_counts_its_levels():
    cfg = load("mmdet", DINO)
    assert {item.status for item in findings(swapped(cfg, THREE))} == {OK}
    (found,) = (item for item in findings(swapped(cfg, FOUR)) if item.status != OK)
    assert found.status == WARNING and "4, 8, 16, 32" in found.text
    more = swapped(cfg, THREE)
    more.model.neck.num_outs = 5
    (found,) = faults(more)
    assert "num_feature_levels is 4, but the neck gives 5 maps" in found.text and found.certain


def test_a_pixel_decoder_knows_its_strides():
    cfg = load("mmdet", "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py")
    decoder = cfg.model.panoptic_head
    cfg.model.backbone = dict(type="VanillaNet", arch="6", width_mult=1 / 64, out_indices=FOUR)
    decoder.in_channels = [8, 16, 32, 64]
    assert not faults(cfg)
    cfg.model.backbone.update(arch=dict(dims=(8, 8, 16, 32, 64), strides=(2, 2, 2, 2)))
    cfg.model.backbone.update(width_mult=1.0, out_indices=(1, 2, 3, 4))
    (found,) = faults(cfg)
    assert "model.panoptic_head.pixel_decoder is built for maps of the strides 4, 8" in found.text


def spelled(way: str, levels: tuple[int, ...]) -> Config:
    """RTMDet, written in another way."""
    cfg = swapped(load("mmdet", RTMDET), levels)
    model = cfg.model
    if way == "class":
        from mmdet.models.detectors import RTMDet

        # As a pure Python config has it.
        model.type, model.backbone.type = RTMDet, VanillaNet
    elif way == "scope":
        model.type, model.bbox_head.type = "mmdet.RTMDet", "mmdet.RTMDetSepBNHead"
    elif way == "list of necks":
        model.neck = [model.neck, dict(type="BFP", in_channels=96, num_levels=len(levels))]
        if len(levels) < 4:
            model.neck[1].refine_level = 1
    elif way == "list of levels":
        model.backbone.out_indices = list(levels)
    elif way == "deploy":
        model.backbone.deploy = True
    elif way == "wrapped":
        inner = copy.deepcopy(model)
        cfg.model = dict(
            type="SoftTeacher",
            detector=inner,
            data_preprocessor=inner.data_preprocessor,
            semi_train_cfg=dict(freeze_teacher=True),
            semi_test_cfg=dict(predict_on="teacher"),
        )
    return cfg


WAYS = ("class", "scope", "list of necks", "list of levels", "deploy", "wrapped")


@pytest.mark.parametrize("way", WAYS)
def test_other_spellings(way):
    assert not faults(spelled(way, THREE))
    found = faults(spelled(way, FOUR))
    assert [item.subject for item in found if item.certain] == ["strides"] * len(found) != []
    if way not in ("wrapped", "list of necks"):
        assert "out_indices=(1, 2, 3)" in found[0].remedy


def test_one_level_as_a_number():
    cfg = swapped(load("mmdet", "yolof/yolof_r50-c5_8xb8-1x_coco.py"), (3,))
    cfg.model.backbone.out_indices = 3
    assert not faults(cfg)
    cfg.model.backbone.out_indices = 2
    cfg.model.neck.in_channels = 32
    (found,) = faults(cfg)
    assert "strides 32, but gets 16" in found.text and "out_indices=(0, 1, 2, 3)" in found.remedy


def test_sizes_that_no_stride_divides():
    cfg = swapped(load("mmdet", FASTER), FOUR)
    model = build_on_meta(cfg).eval()
    passes = [run_parts(model, size) for size in ((800, 1344), (608, 1024), LARGE)]
    assert {item.status for item in check_strides(model, passes)} == {OK}


def test_anchors_for_one_size_and_measured_strides():
    for config in ("ssd/ssd300_coco.py", "yolact/yolact_r50_1xb8-55e_coco.py"):
        assert not faults(load("mmdet", config)), config


def checked(cfg: Config) -> str:
    """'fits', 'found', or 'raises' if the model cannot be built."""
    try:
        model = build_on_meta(cfg)
    except ValueError:
        return "raises"
    wrong = [item for item in check_model(cfg, model) if item.status != OK]
    return "found" if wrong else "fits"


# Whose neck takes the last map alone: finer levels beside it are not used.
LAST_MAP_ALONE = {"conditional_detr", "dab_detr", "detr", "yolof", "centernet"}


@pytest.mark.exhaustive
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_that_can_be_built(family):
    """Right levels pass, and wrong ones are found or raise an error."""
    for path in sorted((configs_of("mmdet") / family).glob("*.py")):
        try:
            cfg = load("mmdet", f"{family}/{path.name}")
            levels = natural_levels(cfg) if cfg.get("model", {}).get("neck") else None
        except Exception as error:  # it needs a file, a package or a device
            pytest.skip(f"{path.name} cannot be built here: {str(error)[:80]}")
        if levels is None:
            continue
        right = swapped(cfg, levels)
        assert checked(right) == "fits", [str(item) for item in findings(right, thorough=True)]
        if family not in LAST_MAP_ALONE:
            assert checked(swapped(cfg, THREE if levels == FOUR else FOUR)) != "fits"
        return
    pytest.skip("no config whose backbone gives the levels of VanillaNet to a neck")
