"""What fuse_checkpoint writes for networks of others gives the outputs of what was trained."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmvanilla.apis.model import load_model
from mmvanilla.deploy import fuse_checkpoint as module
from mmvanilla.deploy.comparison import largest_difference
from mmvanilla.deploy.fuse_checkpoint import fuse_checkpoint
from mmvanilla.models.conv_pair import ConvPair
from tests.helpers import CONFIGS, randomise

GN = dict(type="GN", num_groups=4)
RESNET18 = dict(type="ResNet", depth=18, base_channels=8, stem_channels=8)
PAIR = dict(type="ConvPair")


def classifier(backbone, channels):
    return dict(
        type="ImageClassifier",
        backbone=backbone,
        neck=dict(type="GlobalAveragePooling"),
        head=dict(type="LinearClsHead", num_classes=3, in_channels=channels),
    )


def segmentor(backbone, channels, head=None):
    head = head or dict(type="FCNHead", in_index=0, in_channels=channels, num_convs=1, channels=8)
    return dict(
        type="EncoderDecoder",
        backbone=backbone,
        decode_head=dict(num_classes=3, **head),
        test_cfg=dict(mode="whole"),
    )


def one_stage(head):
    return dict(
        type="SingleStageDetector",
        backbone=dict(RESNET18),
        neck=dict(
            type="FPN",
            in_channels=[8, 16, 32, 64],
            start_level=1,
            out_channels=16,
            add_extra_convs="on_output",
            num_outs=5,
        ),
        bbox_head=dict(num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1, **head),
        test_cfg=dict(
            nms_pre=50,
            score_thr=0.0,
            nms=dict(type="nms", iou_threshold=0.5),
            min_bbox_size=0,
            max_per_img=5,
        ),
    )


def fuse(tmp_path, scope, model):
    config = tmp_path / "config.py"
    config.write_text(
        "custom_imports = dict(imports=['mmvanilla'])\n"
        f"default_scope = {scope!r}\nmodel = {model!r}\n"
    )
    return fuse_config(tmp_path, config, scope)


def fuse_config(tmp_path, config, scope):
    with DefaultScope.overwrite_default_scope(scope):
        trained = randomise(MODELS.build(Config.fromfile(str(config)).model))
    trained.eval()
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / "trained.pth")
    report = fuse_checkpoint(
        str(config),
        str(tmp_path / "trained.pth"),
        str(tmp_path / "fused.pth"),
        sizes=[(64, 96)],
        measured_size=(64, 64),
    )
    written = Config.fromfile(str(report.config))
    fused, _ = load_model(written, str(report.checkpoint))
    assert largest_difference(trained, fused, (96, 64)) < 1e-4
    assert report.max_difference < 1e-4
    return written


@MODELS.register_module()
class MakesPairsByItself(nn.Module):
    """A network whose pairs stand in no config, so that none can say how they are fused."""

    def __init__(self):
        super().__init__()
        self.conv = ConvPair(3, 4, 1)

    def forward(self, x):
        return self.conv(x)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "_LATENCY_ROUNDS", 2)


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize(
    ("backbone", "channels", "plain"),
    [
        pytest.param(dict(RESNET18, conv_cfg=PAIR), 64, True, marks=pytest.mark.exhaustive),
        (dict(RESNET18, conv_cfg=dict(type="mmengine.ConvPair")), 64, True),
        (dict(RESNET18, conv_cfg=dict(PAIR, padding_mode="circular")), 64, True),
        (dict(RESNET18, conv_cfg=PAIR, norm_cfg=GN), 64, False),
        pytest.param(
            dict(RESNET18, conv_cfg=PAIR, init_cfg=[dict(type="Kaiming", layer="Conv2d")]),
            64,
            True,
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            dict(
                type="Res2Net",
                depth=50,
                base_channels=8,
                stem_channels=8,
                scales=4,
                base_width=4,
                conv_cfg=PAIR,
            ),
            256,
            None,
            marks=pytest.mark.exhaustive,
        ),
    ],
    ids=["plain", "scope", "circular", "GN", "init_cfg list", "Res2Net"],
)
def test_classifiers(tmp_path, backbone, channels, plain):
    cfg = fuse(tmp_path, "mmpretrain", classifier(backbone, channels))
    conv_cfg = cfg.model.backbone.conv_cfg
    if plain is not None:
        assert (conv_cfg is None or conv_cfg.type == "Conv2d") is plain


@pytest.mark.toolbox("mmpretrain")
def test_classes_in_a_pure_python_config(tmp_path):
    config = tmp_path / "config.py"
    pairs = repr(classifier(dict(RESNET18, norm_cfg=GN, conv_cfg="PAIR"), 64))
    ours = "dict(type=VanillaNet, arch=dict(dims=(8, 8), strides=(2,)))"
    config.write_text(
        "from mmvanilla import VanillaNet\nfrom mmvanilla.models.conv_pair import ConvPair\n"
        f"default_scope = 'mmpretrain'\nother = {ours}\n"
        f"model = {pairs}\n".replace("'PAIR'", "dict(type=ConvPair)")
    )
    cfg = fuse_config(tmp_path, config, "mmpretrain")
    assert cfg.model.backbone.conv_cfg.deploy is True


@pytest.mark.toolbox("mmseg")
@pytest.mark.parametrize(
    "model",
    [
        segmentor(
            dict(
                type="CGNet",
                num_channels=(8, 16, 32),
                num_blocks=(1, 1),
                norm_cfg=dict(type="BN"),
                conv_cfg=PAIR,
            ),
            11,
        ),
        segmentor(
            dict(type="MobileNetV3", arch="small", norm_cfg=dict(type="BN"), conv_cfg=PAIR), 16
        ),
        segmentor(
            dict(RESNET18),
            0,
            dict(
                type="UPerHead",
                in_channels=[8, 16, 32, 64],
                in_index=[0, 1, 2, 3],
                channels=16,
                pool_scales=(1, 2),
                norm_cfg=GN,
                conv_cfg=PAIR,
            ),
        ),
    ],
    ids=["CGNet", "MobileNetV3", "UPerNet with GN"],
)
def test_segmentors(tmp_path, model):
    fuse(tmp_path, "mmseg", model)


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize(
    "head",
    [
        dict(type="FCOSHead", norm_cfg=GN, conv_cfg=PAIR),
        pytest.param(
            dict(type="ATSSHead", norm_cfg=GN, conv_cfg=PAIR), marks=pytest.mark.exhaustive
        ),
    ],
    ids=lambda head: head["type"],
)
def test_heads_of_detectors(tmp_path, head):
    cfg = fuse(tmp_path, "mmdet", one_stage(head))
    assert cfg.model.bbox_head.conv_cfg.deploy is True


@pytest.mark.toolbox("mmdet")
def test_the_mask_heads_predictor(tmp_path):
    model = Config.fromfile(CONFIGS / "shapes" / "maskrcnn_vanillanet_shapes.py").model
    model.roi_head.mask_head.predictor_cfg = dict(PAIR)
    model.roi_head.mask_head.conv_cfg = dict(PAIR)
    cfg = fuse(tmp_path, "mmdet", model.to_dict() if hasattr(model, "to_dict") else dict(model))
    assert cfg.model.backbone.deploy is True
    assert cfg.model.roi_head.mask_head.predictor_cfg != PAIR


@pytest.mark.toolbox("mmpretrain")
def test_a_config_that_cannot_say_it_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="nothing was written"):
        fuse(tmp_path, "mmengine", dict(type="MakesPairsByItself"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.py", "trained.pth"]
