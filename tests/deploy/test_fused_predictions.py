"""A fused model is written only if it predicts what the trained model predicts."""

import pytest
import torch
from mmcv.cnn import build_conv_layer
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmvanilla.deploy.comparison import compare_forms, typical_size
from tests.deploy.fusing import fuse, write_config

ARCH = dict(dims=(8, 16, 24, 32), strides=(2, 2, 2))
ANCHORS = dict(type="AnchorGenerator", ratios=[1.0], scales=[4], strides=[16, 32])


@MODELS.register_module(force=True)
class TwoFaced(nn.Module):
    """A backbone of which training and predicting take different outputs.

    ``how`` says what predicting takes: a convolution's own output, as heads for re-identification
    do; a part inside of the pair, which no fused model has; or something that depends on the form.
    """

    predicting = False

    def __init__(self, net, conv_cfg, how):
        super().__init__()
        self.net, self.conv = MODELS.build(net), build_conv_layer(conv_cfg, 32, 32, 1)
        self.norm, self.how = nn.BatchNorm2d(32), how

    def forward(self, x):
        *levels, x = self.net(x)
        if not self.predicting:
            x = self.norm(self.conv(x))
        elif self.how == "inside":
            x = next(self.conv.children())(x)
        else:
            x = self.conv(x) * (len(list(self.conv.modules())) if self.how == "form" else 1)
        return (*levels, x)


def own(base, how, **options):
    """The config of a model that tells its backbone when it predicts."""

    @MODELS.register_module(force=True)
    class Own(base):
        def predict(self, *args, **kwargs):
            self.backbone.predicting = True
            try:
                return super().predict(*args, **kwargs)
            finally:
                self.backbone.predicting = False

    net = dict(type="VanillaNet", arch=ARCH, out_indices=(2, 3))
    backbone = dict(type="mmengine.TwoFaced", net=net, conv_cfg=dict(type="ConvPair"), how=how)
    return dict(type="mmengine.Own", backbone=backbone, **options)


def classifier(how):
    from mmpretrain.models import ImageClassifier

    head = dict(type="LinearClsHead", num_classes=3, in_channels=32)
    return own(ImageClassifier, how, neck=dict(type="GlobalAveragePooling"), head=head)


def segmenter(how):
    from mmseg.models import EncoderDecoder

    head = dict(type="FCNHead", in_channels=32, in_index=-1, channels=8, num_convs=1, num_classes=3)
    return own(EncoderDecoder, how, decode_head=head, test_cfg=dict(mode="whole"))


def detector(how):
    from mmdet.models import SingleStageDetector

    head = dict(type="RetinaHead", num_classes=2, in_channels=8, stacked_convs=1, feat_channels=8)
    nms = dict(type="nms", iou_threshold=0.5)
    return own(
        SingleStageDetector,
        how,
        data_preprocessor=dict(type="DetDataPreprocessor", mean=[128] * 3, std=[200] * 3),
        neck=dict(type="FPN", in_channels=[24, 32], out_channels=8, num_outs=2),
        bbox_head=dict(head, anchor_generator=ANCHORS),
        test_cfg=dict(nms_pre=50, min_bbox_size=0, score_thr=0.9, max_per_img=20, nms=nms),
    )


@pytest.mark.parametrize("how", ["conv", "inside", "form"])
@pytest.mark.parametrize(
    ("scope", "make"),
    [
        pytest.param("mmpretrain", classifier, marks=pytest.mark.toolbox("mmpretrain")),
        pytest.param("mmseg", segmenter, marks=pytest.mark.toolbox("mmseg")),
        pytest.param("mmdet", detector, marks=pytest.mark.toolbox("mmdet")),
    ],
)
def test_what_only_predicting_takes_is_compared(tmp_path, monkeypatch, scope, make, how):
    config = write_config(tmp_path, scope, make(how))
    if how != "conv":
        with pytest.raises(RuntimeError, match="predictions.*nothing was written"):
            fuse(tmp_path, config, monkeypatch)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.py", "trained.pth"]
        return
    report, trained, fused = fuse(tmp_path, config, monkeypatch)
    assert report.max_difference < 1e-5
    assert "predictions at 64x96" in report.compared and "NOT" not in report.compared
    # It is compared in truth: other weights, which only predictions show, are refused.
    with torch.no_grad():
        fused.backbone.conv.weight.neg_()
        for form in (trained, fused):
            form.backbone.norm.weight.zero_()
    with pytest.raises(RuntimeError, match="predictions of the fused model differ"):
        compare_forms(trained, fused, [(64, 96)], 1e-4)


@pytest.mark.toolbox("mmseg")
def test_what_cannot_be_predicted_is_said(tmp_path, monkeypatch):
    from mmseg.models import EncoderDecoder

    @MODELS.register_module(force=True)
    class NeedsText(EncoderDecoder):
        def predict(self, inputs, data_samples=None):
            raise KeyError(f"no prompt in {data_samples[0].metainfo['prompt']}")

    model = dict(segmenter("conv"), type="mmengine.NeedsText")
    report, *_ = fuse(tmp_path, write_config(tmp_path, "mmseg", model), monkeypatch)
    assert "NOT compared: predictions (KeyError: 'prompt')" in report.compared
    assert "features or logits at 64x96" in report.compared


def test_the_size_is_one_that_the_config_tests_at():
    crop = [dict(type="ResizeEdge", scale=256), dict(type="CenterCrop", crop_size=227)]
    for steps, side in ((crop, 227), ([dict(type="Resize", scale=(1333, 800))], 512), ([], 224)):
        dataset = dict(type="RepeatDataset", dataset=dict(pipeline=steps))
        assert typical_size(Config(dict(test_dataloader=dict(dataset=dataset)))) == (side, side)
    assert typical_size(Config()) == (224, 224)
