"""What fuse_checkpoint writes for networks of others gives the outputs of what was trained."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmvanilla import ConvPair
from tests.deploy.fusing import fuse, write_config

GN = dict(type="GN", num_groups=4)
RESNET18 = dict(type="ResNet", depth=18, base_channels=8, stem_channels=8)
PAIR = dict(type="ConvPair")


def one_stage(head):
    neck = dict(type="FPN", in_channels=[8, 16, 32, 64], start_level=1, out_channels=16, num_outs=5)
    sizes = dict(num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1)
    test_cfg = dict(nms_pre=50, score_thr=0.0, min_bbox_size=0, max_per_img=5)
    return dict(
        type="SingleStageDetector",
        backbone=dict(RESNET18),
        neck=dict(neck, add_extra_convs="on_output"),
        bbox_head=dict(sizes, **head),
        test_cfg=dict(test_cfg, nms=dict(type="nms", iou_threshold=0.5)),
    )


@MODELS.register_module()
class MakesPairsByItself(nn.Module):
    """A network whose pairs stand in no config, so that none can say how they are fused."""

    def __init__(self):
        super().__init__()
        self.conv = ConvPair(3, 4, 1)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize(
    "options",
    [
        dict(conv_cfg=dict(type="mmengine.ConvPair")),
        dict(conv_cfg=dict(PAIR, padding_mode="circular"), norm_cfg=GN),
    ],
    ids=["scope", "circular, GN"],
)
def test_classifiers(tmp_path, monkeypatch, options):
    head = dict(type="LinearClsHead", num_classes=3, in_channels=64)
    model = dict(type="ImageClassifier", backbone=dict(RESNET18, **options), head=head)
    model["neck"] = dict(type="GlobalAveragePooling")
    report, *_ = fuse(tmp_path, write_config(tmp_path, "mmpretrain", model), monkeypatch)
    assert "predictions at 64x96" in report.compared and "NOT" not in report.compared
    cfg = Config.fromfile(report.config)
    assert report.max_difference < 1e-4
    assert cfg.model.backbone.conv_cfg == dict(options["conv_cfg"], deploy=True)


@pytest.mark.toolbox("mmdet")
def test_a_neck_that_takes_large_images_alone(tmp_path, monkeypatch):
    """NAS-FPN cannot merge levels of images of 64 pixels, which all models were compared at."""
    model = one_stage(dict(type="RetinaHead", conv_cfg=PAIR))
    model["neck"] = dict(type="NASFPN", in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5)
    model["neck"].update(stack_times=1, start_level=1, norm_cfg=dict(type="BN"))
    model["data_preprocessor"] = dict(type="DetDataPreprocessor", pad_size_divisor=128)
    config = write_config(tmp_path, "mmdet", model)
    with config.open("a") as file:
        resize = dict(type="Resize", scale=(640, 256), keep_ratio=True)
        file.write(f"test_dataloader = dict(dataset=dict(pipeline=[{resize!r}]))")
    report, *_ = fuse(tmp_path, config, monkeypatch, sizes=None)
    assert "predictions at 256x256" in report.compared and "NOT" not in report.compared
    assert report.measured.startswith("one 256x256 image")


@pytest.mark.toolbox("mmdet")
def test_both_detectors_inside_of_a_semi_supervised_one(tmp_path, monkeypatch):
    detector = one_stage(dict(type="FCOSHead", norm_cfg=GN, conv_cfg=PAIR))
    arch = dict(dims=(8, 16, 32, 64), strides=(2, 2, 2))
    detector["backbone"] = dict(type="VanillaNet", arch=arch)
    inner = dict(type="DetDataPreprocessor")
    model = dict(
        type="SoftTeacher",
        detector=detector,
        data_preprocessor=dict(type="MultiBranchDataPreprocessor", data_preprocessor=inner),
        semi_train_cfg={},
        semi_test_cfg=dict(predict_on="teacher"),
    )
    report, _, fused = fuse(tmp_path, write_config(tmp_path, "mmdet", model), monkeypatch)
    assert "predictions at 64x96" in report.compared
    assert fused.student.backbone.deploy and fused.teacher.backbone.deploy
    assert report.num_fused == 2 * 10


def test_a_config_that_cannot_say_it_is_refused(tmp_path, monkeypatch):
    config = write_config(tmp_path, "mmengine", dict(type="MakesPairsByItself"))
    with pytest.raises(RuntimeError, match="does not build the fused model, so nothing was"):
        fuse(tmp_path, config, monkeypatch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.py", "trained.pth"]
