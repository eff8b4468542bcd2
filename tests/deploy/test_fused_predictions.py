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
HOW = ("conv", "inside", "form")


class Features(nn.Module):
    """Convolution and norm, of which training and predicting take different outputs.

    ``how`` says what predicting takes: the convolution's own output, as heads for re-identification
    do; a part inside of the pair, which no fused model has; or something that depends on the form.
    """

    def __init__(self, how, channels, conv_cfg):
        super().__init__()
        self.conv = build_conv_layer(conv_cfg, channels, channels, 1)
        self.norm, self.how = nn.BatchNorm2d(channels), how

    def forward(self, x):
        return self.norm(self.conv(x))

    def predicted(self, x):
        if self.how == "inside":
            return next(self.conv.children())(x)
        return self.conv(x) * (len(list(self.conv.modules())) if self.how == "form" else 1)


def features(how):
    return dict(how=how, conv_cfg=dict(type="ConvPair"))


def classifier(how):
    from mmpretrain.models import LinearClsHead
    from mmpretrain.structures import DataSample

    @MODELS.register_module(force=True)
    class ReIdHead(LinearClsHead):
        def __init__(self, features, **kwargs):
            super().__init__(**kwargs)
            self.features = Features(channels=self.in_channels, **features)

        def forward(self, feats):
            return self.fc(self.features(feats[-1]).mean((2, 3)))

        def predict(self, feats, data_samples=None):
            embedding = self.features.predicted(feats[-1]).mean((2, 3))
            return [DataSample().set_pred_score(row) for row in embedding]

    head = dict(type="mmengine.ReIdHead", features=features(how), num_classes=3, in_channels=32)
    backbone = dict(type="VanillaNet", arch=ARCH, out_indices=(3,))
    return dict(type="ImageClassifier", backbone=backbone, head=head)


def segmenter(how):
    from mmseg.models.decode_heads import FCNHead

    @MODELS.register_module(force=True)
    class MetricHead(FCNHead):
        def __init__(self, features, **kwargs):
            super().__init__(**kwargs)
            self.features = Features(channels=self.in_channels, **features)

        def forward(self, inputs):
            return super().forward([self.features(inputs[-1])])

        def predict(self, inputs, batch_img_metas, test_cfg):
            features = self.features.predicted(inputs[-1])
            return self.predict_by_feat(super().forward([features]), batch_img_metas)

    head = dict(
        type="mmengine.MetricHead", features=features(how), in_channels=32, in_index=-1, channels=8
    )
    head.update(num_convs=1, num_classes=3)
    backbone = dict(type="VanillaNet", arch=ARCH)
    test_cfg = dict(mode="whole")
    return dict(type="EncoderDecoder", backbone=backbone, decode_head=head, test_cfg=test_cfg)


def detector(how):
    from mmdet.models.dense_heads import RetinaHead

    @MODELS.register_module(force=True)
    class EmbeddingHead(RetinaHead):
        def __init__(self, features, **kwargs):
            super().__init__(**kwargs)
            self.features = Features(channels=self.in_channels, **features)

        def forward(self, x):
            return super().forward([self.features(level) for level in x])

        def predict(self, x, batch_data_samples, rescale=False):
            outs = super().forward([self.features.predicted(level) for level in x])
            metas = [sample.metainfo for sample in batch_data_samples]
            return self.predict_by_feat(*outs, batch_img_metas=metas, rescale=rescale)

    anchors = dict(type="AnchorGenerator", ratios=[1.0], scales=[4], strides=[16, 32])
    head = dict(type="mmengine.EmbeddingHead", features=features(how), num_classes=2, in_channels=8)
    head.update(stacked_convs=1, feat_channels=8, anchor_generator=anchors)
    test_cfg = dict(nms_pre=50, min_bbox_size=0, score_thr=0.9, max_per_img=20)
    return dict(
        type="SingleStageDetector",
        data_preprocessor=dict(
            type="DetDataPreprocessor", mean=[128.0] * 3, std=[200.0] * 3, pad_size_divisor=32
        ),
        backbone=dict(type="VanillaNet", arch=ARCH, out_indices=(2, 3)),
        neck=dict(type="FPN", in_channels=[24, 32], out_channels=8, num_outs=2),
        bbox_head=head,
        test_cfg=dict(test_cfg, nms=dict(type="nms", iou_threshold=0.5)),
    )


TOOLBOXES = [
    pytest.param("mmpretrain", classifier, marks=pytest.mark.toolbox("mmpretrain")),
    pytest.param("mmseg", segmenter, marks=pytest.mark.toolbox("mmseg")),
    pytest.param("mmdet", detector, marks=pytest.mark.toolbox("mmdet")),
]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("scope", "make"), TOOLBOXES)
def test_what_only_predicting_takes_is_compared(tmp_path, monkeypatch, scope, make, how):
    config = write_config(tmp_path, scope, make(how))
    if how != "conv":
        message = "predictions.*nothing was written"
        with pytest.raises(RuntimeError, match=message):
            fuse(tmp_path, config, monkeypatch)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.py", "trained.pth"]
        return
    report, trained, fused = fuse(tmp_path, config, monkeypatch)
    assert report.max_difference < 1e-5
    assert "predictions at 64x96" in report.compared and "NOT" not in report.compared
    # It is compared in truth: other weights, which only predictions and heads show, are refused.
    features = next(part for part in fused.modules() if isinstance(part, Features))
    with torch.no_grad():
        features.conv.weight.mul_(1.1)
        features.norm.weight.zero_()
        next(part for part in trained.modules() if isinstance(part, Features)).norm.weight.zero_()
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


@pytest.mark.parametrize(
    ("steps", "size"),
    [
        ([dict(type="ResizeEdge", scale=256), dict(type="CenterCrop", crop_size=227)], 227),
        ([dict(type="Resize", scale=(1333, 800), keep_ratio=True), dict(type="Pack")], 512),
        ([dict(type="Resize", scale=(640, 640))], 512),
        ([dict(type="LoadImageFromFile")], 224),
    ],
)
def test_the_size_is_one_that_the_config_tests_at(steps, size):
    dataset = dict(type="RepeatDataset", dataset=dict(pipeline=steps))
    assert typical_size(Config(dict(test_dataloader=dict(dataset=dataset)))) == (size, size)
    assert typical_size(Config()) == (224, 224)
