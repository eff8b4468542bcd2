"""One model to tensors: every output that can be asked for, and what is refused."""

import pytest
import torch
from torch import nn

from mmvanilla import VanillaNet
from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import (
    OUTPUTS,
    TensorModel,
    build_model,
    fixed_input_size,
    input_channels,
    load_model,
)
from tests.helpers import TINY, randomise

ADAPTIVE = dict(dims=(8, 16), strides=(2,), adaptive_pools=(3,), input_size=26)


class Classifier(nn.Module):
    """A backbone and a head, as all toolboxes name them."""

    def __init__(self):
        super().__init__()
        self.backbone = randomise(VanillaNet(TINY))
        self.head = nn.Linear(24, 5)

    def forward(self, inputs):
        return self.head(self.backbone(inputs)[-1].mean(dim=(2, 3)))


class Segmenter(nn.Module):
    """Logit maps at the resolution of the last level."""

    align_corners = False

    def __init__(self):
        super().__init__()
        self.backbone = randomise(VanillaNet(TINY))
        self.decode_head = nn.Conv2d(24, 3, 1)

    def forward(self, inputs):
        return self.decode_head(self.backbone(inputs)[-1])


class Detector(nn.Module):
    """A neck behind the backbone; its forward would need data samples."""

    def __init__(self):
        super().__init__()
        self.backbone = randomise(VanillaNet(TINY))
        self.neck = nn.Conv2d(24, 4, 1)

    def extract_feat(self, inputs):
        return (self.neck(self.backbone(inputs)[-1]),)


@torch.no_grad()
@pytest.mark.parametrize(
    ("build", "output", "natural"),
    [
        (Classifier, "logits", True),
        (Classifier, "probabilities", False),
        (Classifier, "backbone", False),
        (Segmenter, "logits", True),
        (Segmenter, "probabilities", False),
        (Segmenter, "full_size_logits", False),
        (Segmenter, "backbone", False),
        (Detector, "neck", True),
        (Detector, "backbone", False),
        (lambda: VanillaNet(TINY), "backbone", True),
    ],
)
def test_each_output_is_what_the_model_computes(build, output, natural):
    model = build().eval()
    images = torch.randn(2, 3, 64, 96)
    adapter = TensorModel(model, output)
    found = adapter(images)
    if output == "backbone":
        expected = getattr(model, "backbone", model)(images)
    elif output == "neck":
        expected = model.extract_feat(images)
    else:
        expected = model(images)
        if output == "probabilities":
            expected = expected.softmax(dim=1)
        elif output == "full_size_logits":
            expected = nn.functional.interpolate(expected, size=(64, 96), mode="bilinear")
    torch.testing.assert_close(found, expected)
    assert adapter.what == OUTPUTS[output]
    assert (TensorModel(model).output == output) == natural


def test_outputs_that_a_model_does_not_have_are_refused():
    with pytest.raises(ValueError, match="unknown output 'boxes'; choose from backbone, neck"):
        TensorModel(Classifier(), "boxes")
    with pytest.raises(ValueError, match="Detector has no head that gives logits"):
        TensorModel(Detector(), "logits")
    with pytest.raises(ValueError, match="is not a segmenter"):
        TensorModel(Classifier(), "full_size_logits")


def test_only_adaptive_pooling_fixes_the_input_size():
    assert fixed_input_size(nn.Sequential(VanillaNet(ADAPTIVE))) == (26, 26)
    assert fixed_input_size(VanillaNet(TINY)) is None
    assert fixed_input_size(nn.Conv2d(3, 3, 1)) is None


def with_mean(model, channels):
    model.data_preprocessor = nn.Module()
    model.data_preprocessor.register_buffer("mean", torch.zeros(channels, 1, 1))
    return model


@pytest.mark.parametrize(
    ("build", "channels"),
    [
        (lambda: VanillaNet(TINY), 3),
        (lambda: VanillaNet(TINY, in_channels=1), 1),
        (lambda: VanillaNet(TINY, in_channels=5), 5),
        (Classifier, 3),
        # Four channels by the normalisation, one by the first convolution.
        (lambda: with_mean(nn.Sequential(nn.Conv2d(8, 4, 3)), 4), 4),
        (lambda: with_mean(nn.Sequential(nn.Conv2d(1, 4, 3)), 1), 1),
        # A first convolution of something else than the image.
        (lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3)), 3),
        (nn.Sequential, 3),
    ],
)
def test_input_channels(build, channels):
    assert input_channels(build()) == channels


DISTILLERS = {
    "lad": """
_base_ = ["mmdet::lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py"]
tiny = dict(_delete_=True, type="VanillaNet", arch="6", width_mult=1 / 64)
neck = dict(in_channels=[8, 16, 32, 64])
model = dict(backbone=tiny, neck=neck, teacher_backbone=tiny, teacher_neck=neck)
""",
    "ld": """
_base_ = ["mmdet::ld/ld_r18-gflv1-r101_fpn_1x_coco.py"]
tiny = dict(_delete_=True, type="VanillaNet", arch="6", width_mult=1 / 64)
neck = dict(in_channels=[8, 16, 32, 64])
model = dict(backbone=tiny, neck=neck, teacher_config="teacher.py")
""",
}
TEACHER = """
_base_ = ["mmdet::gfl/gfl_r50_fpn_1x_coco.py"]
tiny = dict(_delete_=True, type="VanillaNet", arch="6", width_mult=1 / 64)
model = dict(backbone=tiny, neck=dict(in_channels=[8, 16, 32, 64]))
"""


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize("name", DISTILLERS)
def test_mmdetections_teachers_are_not_loaded_to_build_a_model(name, tmp_path, monkeypatch):
    """Their files are on a server, which the tests do not reach."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher.py").write_text(TEACHER)
    (tmp_path / "student.py").write_text(DISTILLERS[name])
    cfg = load_config("student.py")
    assert cfg.model.teacher_ckpt.startswith("http")
    model = build_model(cfg)
    assert isinstance(model.teacher_model.backbone, VanillaNet)
    assert cfg.model.teacher_ckpt


def write_classifier(folder):
    backbone = dict(type="mmvanilla.VanillaNet", arch=TINY)
    text = f"default_scope = 'mmengine'\nmodel = {backbone!r}\n"
    text += "custom_imports = dict(imports=['mmvanilla'])\n"
    (folder / "config.py").write_text(text)
    return load_config(str(folder / "config.py"))


def test_weights_are_loaded_whole(tmp_path):
    cfg = write_classifier(tmp_path)
    weights = randomise(build_model(cfg)).state_dict()
    for name, prefix in (("plain.pth", ""), ("wrapped.pth", "module.")):
        torch.save({f"{prefix}{key}": value for key, value in weights.items()}, tmp_path / name)
        model, _ = load_model(cfg, str(tmp_path / name))
        assert not model.training
        for key, value in model.state_dict().items():
            assert torch.equal(value, weights[key]), key
    del weights["stem.conv.first.conv.weight"]
    torch.save(weights, tmp_path / "less.pth")
    with pytest.raises(RuntimeError, match=r"less\.pth does not fit the model of .*config\.py"):
        load_model(cfg, str(tmp_path / "less.pth"))


def test_a_model_that_cannot_be_built_is_one_line(tmp_path):
    cfg = write_classifier(tmp_path)
    cfg.model.arch = "99"
    with pytest.raises(ValueError, match=r"config\.py: the model cannot be built: .*99") as caught:
        build_model(cfg)
    assert "\n" not in str(caught.value)
