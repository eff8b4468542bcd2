"""Levels, channels and strides that do not fit are found by running the model's parts."""

from __future__ import annotations

import copy

import pytest
from mmengine.config import Config

from mmvanilla.apis.model import build_on_meta
from mmvanilla.checks.findings import FAULT, OK, WARNING
from mmvanilla.checks.model_check import check_model
from tests.checks.swaps import load, swapped

FOUR, THREE = (0, 1, 2, 3), (1, 2, 3)
RTMDET = "rtmdet/rtmdet_tiny_8xb32-300e_coco.py"
FASTER = "_base_/models/faster-rcnn_r50_fpn.py"


def findings(cfg: Config, **options):
    return check_model(cfg, build_on_meta(cfg), **options)


def faults(cfg: Config, **options):
    return [item for item in findings(cfg, **options) if item.status == FAULT]


DETECTOR = {
    "channels of a ResNet": (
        dict(neck=dict(in_channels=[256, 512, 1024, 2048])),
        "(model.neck: in_channels=[256, 512, 1024, 2048], gets [(8, 64, 96), (16,",
    ),
    "a narrow box head": (
        dict(roi_head=dict(bbox_head=dict(in_channels=64))),
        "model.roi_head.bbox_head.shared_fcs.0: RuntimeError: mat1 and mat2",
    ),
    "images of one channel": (
        dict(backbone=dict(in_channels=1)),
        "to have 1 channels, but got 3 channels instead (model.backbone:",
    ),
}


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize("kind", DETECTOR)
def test_channels_of_detectors(kind):
    change, text = DETECTOR[kind]
    cfg = swapped(load("mmdet", FASTER), FOUR)
    assert not faults(cfg)
    cfg.merge_from_dict(dict(model=change))
    found = faults(cfg)
    assert any(text in item.text for item in found), found
    assert all(item.remedy and "\n" not in str(item) for item in found)
    assert found[0].certain


@pytest.mark.toolbox("mmdet")
def test_each_part_is_looked_at_also_if_another_one_fails():
    cfg = swapped(load("mmdet", "_base_/models/cascade-rcnn_r50_fpn.py"), FOUR)
    assert not faults(cfg)
    cfg.model.neck.out_channels = 64
    cfg.model.roi_head.bbox_head[1].in_channels = 32
    text = str(faults(cfg))
    assert "model.rpn_head" in text and "model.roi_head.bbox_head.1" in text


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize("way", ["as it is", "list of necks", "wrapped"])
def test_strides(way):
    """RTMDet, written in several ways, with the levels that it needs, and with others."""
    for levels in (THREE, FOUR):
        cfg = swapped(load("mmdet", RTMDET), levels)
        model = cfg.model
        if way == "list of necks":
            more = dict(type="BFP", in_channels=96, num_levels=len(levels), refine_level=1)
            model.neck = [model.neck, more]
        elif way == "wrapped":
            inner = copy.deepcopy(model)
            cfg.model = dict(
                type="SoftTeacher",
                detector=inner,
                data_preprocessor=inner.data_preprocessor,
                semi_train_cfg=dict(freeze_teacher=True),
                semi_test_cfg=dict(predict_on="teacher"),
            )
        found = faults(cfg)
        assert [item.subject for item in found if item.certain] == ["strides"] * len(found)
        assert bool(found) == (levels == FOUR)
    assert "is built for maps of the strides 8, 16, 32, but gets 4, 8, 16, 32" in found[0].text


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize(
    "config",
    [
        "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py",
        "boxinst/boxinst_r50_fpn_ms-90k_coco.py",
        "ssd/ssd300_coco.py",
        "yolact/yolact_r50_1xb8-55e_coco.py",
        "solo/solo_r50_fpn_1x_coco.py",
    ],
)
def test_heads_that_change_their_maps_are_no_fault(config):
    if "boxinst" in config:
        pytest.importorskip("skimage")
    assert not faults(load("mmdet", config))


@pytest.mark.toolbox("mmdet")
def test_one_level():
    cfg = swapped(load("mmdet", "yolof/yolof_r50-c5_8xb8-1x_coco.py"), (3,))
    assert not faults(cfg)
    cfg.model.backbone.out_indices, cfg.model.neck.in_channels = 2, 32
    assert "strides 32, but gets 16" in faults(cfg)[0].text


def segmenter(base: str = "_base_/models/pspnet_r50-d8.py") -> Config:
    cfg = load("mmseg", base)
    cfg.model.pretrained = None
    cfg.model.backbone = dict(type="VanillaNet", arch="6", width_mult=1 / 64, out_indices=FOUR)
    cfg.model.decode_head.update(in_channels=64, channels=16)
    cfg.model.auxiliary_head.update(in_channels=32, channels=16)
    return cfg


SEGMENTER = {
    "main head": (dict(decode_head=dict(in_channels=2048)), "model.decode_head: in_channels=2048"),
    "auxiliary head": (dict(auxiliary_head=dict(in_channels=99)), "model.auxiliary_head: in_ch"),
    "index": (dict(backbone=dict(out_indices=(0, 1, 3))), "model.decode_head: IndexError"),
}


@pytest.mark.toolbox("mmseg")
@pytest.mark.parametrize("kind", SEGMENTER)
def test_segmenters(kind):
    change, text = SEGMENTER[kind]
    cfg = segmenter()
    assert {item.status for item in findings(cfg)} == {OK}
    cfg.merge_from_dict(dict(model=change))
    assert any(text in item.text and item.certain for item in faults(cfg)), faults(cfg)


@pytest.mark.toolbox("mmseg")
def test_the_heads_of_a_cascade_must_read_one_level():
    cfg = load("mmseg", "ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py")
    cfg.model.pretrained = None
    cfg.model.backbone = dict(type="VanillaNet", arch="6", width_mult=1 / 64, out_indices=FOUR)
    first, second = cfg.model.decode_head
    first.in_channels, second.in_channels = 32, 64
    (found,) = faults(cfg)
    assert "model.decode_head" in found.text and found.certain
    first.update(in_channels=64, in_index=3)
    assert not faults(cfg)
    cfg = load("mmseg", "point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py")
    cfg.model.pretrained = None
    assert not faults(cfg)  # its second head takes points


@pytest.mark.toolbox("mmpretrain")
def test_a_backbone_of_others_may_be_made_for_one_size():
    cfg = load("mmpretrain", "mlp_mixer/mlp-mixer-base-p16_64xb64_in1k.py")
    assert {item.status for item in findings(cfg)} == {WARNING}


@pytest.mark.toolbox("mmpretrain")
def test_classifiers():
    backbone = dict(type="VanillaNet", arch="6", width_mult=1 / 64, out_indices=(-1,))
    head = dict(type="LinearClsHead", num_classes=5, in_channels=64)
    neck = dict(type="GlobalAveragePooling")
    model = dict(type="ImageClassifier", backbone=backbone, neck=neck, head=head)
    cfg = Config(dict(model=model, default_scope="mmpretrain"))
    assert {item.status for item in findings(cfg)} == {OK}
    cfg.model.head.in_channels = 2048
    (found,) = faults(cfg)
    assert "(1x64 and 2048x5)" in found.text and found.certain
