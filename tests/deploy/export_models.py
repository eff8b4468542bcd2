"""Small models of all kinds, with nothing left at its initial value."""

from __future__ import annotations

import pytest
from mmengine.registry import MODELS, init_default_scope

from mmvanilla import VanillaNet
from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model
from tests.helpers import CONFIGS, randomise

TINY = dict(dims=(8, 16, 24, 32, 32), strides=(2, 2, 2, 1))
ADAPTIVE = dict(dims=(8, 16, 32), strides=(2, 2), adaptive_pools=(5, 3))
ADAPTIVE.update(stem_stride=3, stem_padding=1, input_size=26)


def build_backbone(arch=TINY):
    return randomise(VanillaNet(arch)).eval()


def build_classifier(head="VanillaNetClsHead", **options):
    """A classifier of five classes; a head of MMPretrain's own gets pooled features."""
    pytest.importorskip("mmpretrain.models")
    pytest.importorskip("mmvanilla.cls_head")
    init_default_scope("mmpretrain")
    cfg = dict(
        type="ImageClassifier",
        backbone=dict(type="VanillaNet", arch=TINY, out_indices=(3,)),
        neck=None if head == "VanillaNetClsHead" else dict(type="GlobalAveragePooling"),
        head=dict(type=head, in_channels=32, num_classes=5, **options),
        data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True),
    )
    return randomise(MODELS.build(cfg)).eval()


def build_segmenter():
    """A segmenter with pyramid pooling."""
    pytest.importorskip("mmseg.models")
    init_default_scope("mmseg")
    inputs = dict(in_channels=[8, 16, 24, 32], in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6))
    cfg = dict(
        type="EncoderDecoder",
        data_preprocessor=dict(type="SegDataPreProcessor"),
        backbone=dict(type="VanillaNet", arch=TINY),
        decode_head=dict(type="UPerHead", **inputs, channels=8, num_classes=4),
        test_cfg=dict(mode="whole"),
    )
    cfg["decode_head"].update(norm_cfg=dict(type="BN"), align_corners=False)
    return randomise(MODELS.build(cfg)).eval()


def build_detector():
    pytest.importorskip("mmdet.models")
    cfg = load_config(str(CONFIGS / "shapes" / "maskrcnn_vanillanet_shapes.py"))
    return randomise(build_model(cfg)).eval()
