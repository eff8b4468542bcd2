"""Channels that do not fit: the entry of the config is named, and what to write there."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from torch import nn

from mmvanilla.apis.model import build_on_meta
from mmvanilla.checks.findings import FAULT, OK
from mmvanilla.checks.model_check import check_model
from tests.checks.swaps import load, swapped

FOUR = (0, 1, 2, 3)
FASTER = "_base_/models/faster-rcnn_r50_fpn.py"
PSPNET = "_base_/models/pspnet_r50-d8.py"
DEEPLAB = "_base_/models/deeplabv3plus_r50-d8.py"


def the_fault(cfg: Config, thorough: bool = False):
    found = check_model(cfg, build_on_meta(cfg), thorough=thorough)
    (fault,) = (item for item in found if item.status == FAULT)
    return fault


def detector(base: str = FASTER) -> Config:
    return swapped(load("mmdet", base), FOUR)


def segmenter(base: str = PSPNET) -> Config:
    cfg = load("mmseg", base)
    cfg.model.pretrained = None
    cfg.model.backbone = dict(type="VanillaNet", arch="6", width_mult=1 / 64, out_indices=FOUR)
    cfg.model.decode_head.update(in_channels=64, channels=16)
    if "c1_in_channels" in cfg.model.decode_head:
        cfg.model.decode_head.c1_in_channels = 8
    cfg.model.auxiliary_head.update(in_channels=32, channels=16)
    return cfg


def classifier() -> Config:
    backbone = dict(type="VanillaNet", arch="6", width_mult=1 / 64, out_indices=(-1,))
    head = dict(type="LinearClsHead", num_classes=5, in_channels=64)
    model = dict(type="ImageClassifier", backbone=backbone, head=head)
    model["neck"] = dict(type="GlobalAveragePooling")
    return Config(dict(model=model, default_scope="mmpretrain"))


DETECTOR = {
    "channels of a ResNet": (
        dict(neck=dict(in_channels=[256, 512, 1024, 2048])),
        "model.neck.in_channels is [256, 512, 1024, 2048], but maps of [8, 16, 32, 64] channels",
        "set model.neck.in_channels=[8, 16, 32, 64]",
    ),
    "too few maps": (
        dict(backbone=dict(out_indices=(1, 2, 3))),
        "for 4 maps, but 3 arrive, of [16, 32, 64] channels",
        "set model.neck.in_channels=[16, 32, 64], or 4 levels in out_indices",
    ),
    "a narrow neck": (
        dict(neck=dict(out_channels=64)),
        "model.rpn_head.in_channels is 256, but maps of [64, 64, 64, 64, 64] channels",
        "set model.rpn_head.in_channels=64",
    ),
    "a narrow box head": (
        dict(roi_head=dict(bbox_head=dict(in_channels=64))),
        "model.roi_head.bbox_head.in_channels is 64, but maps of [256] channels",
        "set model.roi_head.bbox_head.in_channels=256",
    ),
    "regions of another size": (
        dict(roi_head=dict(bbox_head=dict(roi_feat_size=14))),
        "roi_feat_size is 14, but the RoI extractor gives 7x7",
        "set model.roi_head.bbox_head.roi_feat_size=7",
    ),
    "images of one channel": (
        dict(backbone=dict(in_channels=1)),
        "model.backbone.in_channels is 1, but maps of [3] channels",
        "set model.backbone.in_channels=3",
    ),
}


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize("kind", DETECTOR)
def test_detectors(kind):
    change, text, remedy = DETECTOR[kind]
    cfg = detector()
    cfg.merge_from_dict(dict(model=change))
    found = check_model(cfg, build_on_meta(cfg), thorough=False)
    first = [item for item in found if item.status == FAULT][0]
    assert text in first.text and first.remedy.startswith(remedy), first
    assert first.certain


@pytest.mark.toolbox("mmdet")
def test_each_part_is_looked_at_also_if_another_one_fails():
    cfg = detector()
    cfg.model.neck.out_channels = 64
    found = check_model(cfg, build_on_meta(cfg), thorough=False)
    places = {item.text.split(" is ")[0] for item in found if item.status == FAULT}
    assert {
        "model.rpn_head.in_channels",
        "model.roi_head.bbox_roi_extractor.out_channels",
    } <= places


@pytest.mark.toolbox("mmdet")
def test_a_cascade_of_heads():
    cfg = detector("_base_/models/cascade-rcnn_r50_fpn.py")
    assert {i.status for i in check_model(cfg, build_on_meta(cfg), thorough=False)} == {OK}
    cfg.model.roi_head.bbox_head[1].in_channels = 64
    found = the_fault(cfg)
    assert "model.roi_head.bbox_head[1].in_channels is 64" in found.text
    assert found.remedy == "set model.roi_head.bbox_head[1].in_channels=256"


SEGMENTER = {
    "main head": (
        dict(decode_head=dict(in_channels=2048)),
        "set model.decode_head.in_channels=64",
    ),
    "auxiliary head": (
        dict(auxiliary_head=dict(in_channels=1024)),
        "set model.auxiliary_head.in_channels=32",
    ),
    "index that is not there": (
        dict(backbone=dict(out_indices=(0, 1, 3))),
        "choose in_index from 0 to 2",
    ),
}


@pytest.mark.toolbox("mmseg")
@pytest.mark.parametrize("kind", SEGMENTER)
def test_segmenters(kind):
    change, remedy = SEGMENTER[kind]
    cfg = segmenter()
    assert {item.status for item in check_model(cfg, build_on_meta(cfg))} == {OK}
    cfg.merge_from_dict(dict(model=change))
    found = check_model(cfg, build_on_meta(cfg))
    assert any(item.remedy.startswith(remedy) and item.certain for item in found), found


@pytest.mark.toolbox("mmseg")
def test_the_second_entry_of_deeplab():
    cfg = segmenter(DEEPLAB)
    cfg.model.decode_head.c1_channels = 8
    assert {item.status for item in check_model(cfg, build_on_meta(cfg))} == {OK}
    cfg.model.decode_head.c1_in_channels = 256
    assert the_fault(cfg).remedy == "set model.decode_head.c1_in_channels=8"


@pytest.mark.toolbox("mmseg")
def test_semantic_fpn_knows_strides():
    cfg = swapped(load("mmseg", "_base_/models/fpn_r50.py"), (1, 2, 3))
    cfg.model.pretrained = None
    found = the_fault(cfg)
    assert "model.decode_head is built for maps of the strides 4, 8, 16, 32" in found.text
    assert "out_indices=(0, 1, 2, 3)" in found.remedy


@pytest.mark.toolbox("mmseg")
@pytest.mark.parametrize(
    ("norm", "processes"), [("BN", 1), ("SyncBN", 1), ("SyncBN", 8), ("GN", 1)]
)
def test_one_image_and_a_head_that_pools_to_one_pixel(norm, processes):
    cfg = segmenter()
    norm_cfg = dict(type=norm, **(dict(num_groups=4) if norm == "GN" else {}))
    for part in (cfg.model.decode_head, cfg.model.auxiliary_head):
        part.norm_cfg = norm_cfg
    cfg.train_dataloader = dict(batch_size=1)
    model = build_on_meta(cfg)
    found = check_model(cfg, model, thorough=False, one_process=processes == 1)
    wrong = [item for item in found if item.status != OK]
    expected = {("BN", 1): FAULT, ("SyncBN", 1): FAULT, ("SyncBN", 8): "warning"}
    assert [item.status for item in wrong] == [expected.get((norm, processes))] * (norm != "GN")
    assert all("batch_size=2" in item.remedy for item in wrong)
    cfg.train_dataloader.batch_size = 2
    assert all(item.status == OK for item in check_model(cfg, model, thorough=False))


@pytest.mark.toolbox("mmpretrain")
def test_classifiers():
    cfg = classifier()
    assert {item.status for item in check_model(cfg, build_on_meta(cfg))} == {OK}
    cfg.model.head.in_channels = 2048
    found = the_fault(cfg)
    assert "model.head.in_channels is 2048, but 64 channels arrive" in found.text
    assert found.remedy == "set model.head.in_channels=64" and found.certain


@pytest.mark.toolbox("mmpretrain")
def test_an_image_that_is_too_small_is_no_certain_fault():
    cfg = classifier()
    found = [
        item
        for item in check_model(cfg, build_on_meta(cfg), size=(16, 16), thorough=False)
        if item.status == FAULT
    ]
    assert ["too small" in item.text and "16x16" in item.text for item in found] == [True]
    assert not found[0].certain


class NeedsAnotherDevice(nn.Module):
    """As some ops of mmcv: there is no kernel for this device."""

    def forward(self, maps):
        raise RuntimeError("no kernel for this device")


@pytest.mark.toolbox("mmpretrain")
def test_another_network_and_its_own_errors():
    cfg = Config(
        dict(
            default_scope="mmpretrain",
            model=dict(
                type="ImageClassifier",
                backbone=dict(type="ResNet", depth=18),
                neck=dict(type="GlobalAveragePooling"),
                head=dict(type="LinearClsHead", num_classes=5, in_channels=2048),
            ),
        )
    )
    assert the_fault(cfg).remedy == "set model.head.in_channels=512"
    cfg.model.neck = dict(type=NeedsAnotherDevice)
    (found,) = (item for item in check_model(cfg, build_on_meta(cfg)) if item.status != OK)
    assert found.status == "warning" and "could not be run here" in found.text
    assert "no kernel for this device" in found.text and "model.neck" in found.text
