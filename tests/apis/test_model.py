"""One model to tensors: every output that can be asked for, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mmvanilla import VanillaNet
from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import (
    TensorModel,
    build_model,
    fixed_input_size,
    input_channels,
    load_model,
)
from tests.helpers import TINY, randomise

ADAPTIVE = dict(dims=(8, 16), strides=(2,), adaptive_pools=(3,), input_size=26)


class Toy(nn.Module):
    """A backbone and what is behind it, as all toolboxes name them."""

    align_corners = False

    def __init__(self, **parts):
        super().__init__()
        self.backbone = randomise(VanillaNet(TINY))
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, inputs):
        feature = self.backbone(inputs)[-1]
        return self.head(feature.mean((2, 3))) if "head" in dir(self) else self.decode_head(feature)


class ToyDetector(Toy):
    """Its forward would need data samples."""

    forward = None

    def extract_feat(self, inputs):
        return (self.neck(self.backbone(inputs)[-1]),)


BUILD = {
    "classifier": lambda: Toy(head=nn.Linear(24, 5)),
    "segmenter": lambda: Toy(decode_head=nn.Conv2d(24, 3, 1)),
    "detector": lambda: ToyDetector(neck=nn.Conv2d(24, 4, 1)),
    "backbone": lambda: VanillaNet(TINY),
}


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "outputs", "natural"),
    [
        ("classifier", ("backbone", "logits"), "logits"),
        ("segmenter", ("backbone", "logits"), "logits"),
        ("detector", ("backbone", "neck"), "neck"),
        ("backbone", ("backbone",), "backbone"),
    ],
)
def test_each_output_is_what_the_model_computes(kind, outputs, natural):
    model = BUILD[kind]().eval()
    images = torch.randn(2, 3, 64, 96)
    assert TensorModel(model).output == natural
    for output in outputs:
        if output == "backbone":
            expected = getattr(model, "backbone", model)(images)
        else:
            expected = model.extract_feat(images) if output == "neck" else model(images)
        torch.testing.assert_close(TensorModel(model, output)(images), expected)
    for output in {"neck", "logits", "head", "boxes"} - {*outputs}:
        with pytest.raises(ValueError, match=f"gives no '{output}'; choose from backbone"):
            TensorModel(model, output)


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
        (lambda: VanillaNet(TINY, in_channels=1), 1),
        (lambda: VanillaNet(TINY, in_channels=5), 5),
        (BUILD["classifier"], 3),
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


TINY_NET = """
tiny = dict(_delete_=True, type="VanillaNet", arch="6", width_mult=1 / 64)
model = dict(backbone=tiny, neck=dict(in_channels=[8, 16, 32, 64]))
"""


@pytest.mark.toolbox("mmdet")
def test_mmdetections_teachers_are_not_loaded_to_build_a_model(tmp_path, monkeypatch):
    """Their files are on a server, which the tests do not reach."""
    monkeypatch.chdir(tmp_path)
    for name, base in (
        ("teacher", "gfl/gfl_r50_fpn_1x"),
        ("student", "ld/ld_r18-gflv1-r101_fpn_1x"),
    ):
        text = f"_base_ = ['mmdet::{base}_coco.py']{TINY_NET}"
        Path(f"{name}.py").write_text(text)
    cfg = load_config("student.py", {"model.teacher_config": "teacher.py"})
    assert cfg.model.teacher_ckpt.startswith("http")
    assert isinstance(build_model(cfg).teacher_model.backbone, VanillaNet)
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
    for prefix in ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        wrapped = {f"{prefix}{key}": value for key, value in weights.items()}
        torch.save(wrapped, tmp_path / "wrapped.pth")
        model, _ = load_model(cfg, str(tmp_path / "wrapped.pth"))
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
