"""The numbers of classes of heads and data sets."""

import pytest
from mmengine.config import Config

from mmvanilla.apis.model import build_on_meta
from mmvanilla.checks.classes import check_classes
from mmvanilla.checks.findings import FAULT, OK, WARNING
from tests.checks.swaps import load, swapped

FOUR = (0, 1, 2, 3)


def checked(cfg: Config):
    return check_classes(cfg, build_on_meta(cfg))


def detector(classes, **dataset):
    cfg = swapped(load("mmdet", "_base_/models/mask-rcnn_r50_fpn.py"), FOUR)
    for head in (cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        head.num_classes = classes
    node = dict(type="CocoDataset", data_root="nowhere", ann_file="a.json", **dataset)
    cfg.train_dataloader = dict(dataset=dict(type="RepeatDataset", times=2, dataset=node))
    return cfg


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize(
    ("classes", "metainfo", "status"),
    [
        (80, None, OK),
        (3, None, FAULT),
        (80, dict(classes=("cat", "dog")), FAULT),
        (2, dict(classes=("cat", "dog")), OK),
        (2, dict(classes=["cat", "dog"]), OK),
        (1, dict(classes=("cat",)), OK),
    ],
)
def test_detectors(classes, metainfo, status):
    found = checked(detector(classes, **(dict(metainfo=metainfo) if metainfo else {})))
    assert {item.status for item in found} == {status}
    assert not any(item.certain for item in found)
    if status == FAULT:
        count = len(metainfo["classes"]) if metainfo else 80
        assert [item.remedy.split(",")[0] for item in found] == [
            f"set model.roi_head.{kind}_head.num_classes={count}" for kind in ("bbox", "mask")
        ]


@pytest.mark.toolbox("mmdet")
def test_one_class_without_its_comma():
    (found,) = checked(detector(1, metainfo=dict(classes="cat")))
    assert found.status == FAULT and found.remedy == "write a tuple: classes=('cat',)"


@pytest.mark.toolbox("mmdet")
def test_classes_in_a_file(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    cfg = detector(2, metainfo=dict(classes=str(tmp_path / "classes.txt")))
    assert {item.status for item in checked(cfg)} == {OK}


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize(
    "config",
    [
        "rpn/rpn_r50_fpn_1x_coco.py",
        "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py",
        "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py",
    ],
)
def test_stock_configs_fit(config):
    assert {item.status for item in checked(load("mmdet", config))} == {OK} or "rpn_" in config


@pytest.mark.toolbox("mmseg")
@pytest.mark.parametrize(("classes", "status"), [(150, OK), (19, FAULT), (171, WARNING)])
def test_segmenters(classes, status):
    cfg = load("mmseg", "upernet/upernet_r50_4xb4-80k_ade20k-512x512.py")
    cfg.model.decode_head.num_classes = classes
    found = checked(cfg)
    assert {item.status for item in found} == {status}
    if status != OK:
        assert found[0].remedy.startswith("set model.decode_head.num_classes=150")


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize(("classes", "status"), [(100, OK), (10, FAULT), (1000, WARNING)])
def test_classifiers(classes, status):
    cfg = load("mmpretrain", "resnet/resnet50_8xb16_cifar100.py")
    cfg.model.head.num_classes = classes
    assert {item.status for item in checked(cfg)} == {status}
