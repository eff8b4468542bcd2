"""Converting the authors' files, as a library and by tools/convert_checkpoint.py."""

import argparse
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmvanilla import ARCHS, VanillaNet, fuse_model
from mmvanilla.checkpoints.conversion import convert_and_write, convert_checkpoint, convert_file
from tests.authors_model import authors_model, authors_weights
from tests.helpers import DATA

DIMS = (8, 16, 24)
ARCH = dict(dims=DIMS, strides=(2, 1))
# Modules beside the backbone in MMDetection 2.x's own checkpoints of these detectors.
MASK_RCNN_2X = [
    *(f"neck.{kind}_convs.{i}.conv" for kind in ("lateral", "fpn") for i in range(4)),
    *(f"rpn_head.rpn_{part}" for part in ("conv", "cls", "reg")),
    *(f"roi_head.bbox_head.{part}" for part in ("fc_cls", "fc_reg")),
    *(f"roi_head.bbox_head.shared_fcs.{i}" for i in range(2)),
    *(f"roi_head.mask_head.convs.{i}.conv" for i in range(4)),
    *(f"roi_head.mask_head.{part}" for part in ("upsample", "conv_logits")),
]
RETINANET_2X = [
    *(f"neck.lateral_convs.{i}.conv" for i in range(3)),
    *(f"neck.fpn_convs.{i}.conv" for i in range(5)),
    *(f"bbox_head.{kind}_convs.{i}.conv" for kind in ("cls", "reg") for i in range(4)),
    *(f"bbox_head.retina_{part}" for part in ("cls", "reg")),
]


def test_which_weights_of_a_file():
    weights = {key: authors_weights(DIMS) for key in ("model_ema", "model", "state_dict")}
    for expected in ("model_ema", "model", "state_dict"):
        checkpoint, _ = convert_checkpoint(dict(weights, epoch=3))
        assert checkpoint["meta"]["converted_from"] == expected
        converted = checkpoint["state_dict"]["stem.conv.first.conv.weight"]
        assert torch.equal(converted, weights[expected]["stem1.0.weight"])
        weights[expected] = None  # as a file without averaged weights may have it
    checkpoint, _ = convert_checkpoint(authors_weights(DIMS))
    assert checkpoint["meta"]["converted_from"] == "state dict"


@pytest.mark.parametrize(
    ("epoch", "args", "expected"),
    [
        (40, dict(decay_epochs=100, decay_linear=True), 0.4),
        (40, dict(decay_epochs=100), 0.4),
        (50, dict(decay_epochs=100, decay_linear=False), 0.5),
        (100, dict(decay_epochs=100), 1.0),
        (299, dict(decay_epochs=100), 1.0),
        (40, dict(), 1.0),
    ],
)
def test_a_file_from_the_middle_of_training_keeps_its_lambda(epoch, args, expected):
    file = dict(model=authors_weights(DIMS), epoch=epoch, args=argparse.Namespace(**args))
    checkpoint, _ = convert_checkpoint(file)
    assert checkpoint["meta"]["act_lambda"] == pytest.approx(expected)
    model = VanillaNet(ARCH).eval()
    model.load_state_dict(checkpoint["state_dict"])
    assert model.blocks[0].conv.act.act_lambda == pytest.approx(expected)
    if expected < 1:
        with pytest.raises(RuntimeError, match=f"λ = {expected:g}"):
            fuse_model(model)


def test_errors_name_the_file(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"resnet\.pth: these are not VanillaNet weights"):
        convert_file(tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"resnet\.pth: these are not VanillaNet weights"):
        convert_and_write(tmp_path / "resnet.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_what_is_written_is_plain_and_whole(tmp_path, run_tool):
    out = tmp_path / "out.pth"
    status, printed = run_tool(
        "convert_checkpoint", DATA / "tiny5.official.pth", out, "--strides", 2, 2, 2
    )
    assert status == 0, printed.err
    written = torch.load(out, weights_only=True)
    assert set(written) == {"meta", "state_dict"}
    assert written["meta"]["arch"] == dict(dims=(16, 32, 64, 128), strides=(2, 2, 2))
    config = next(line for line in printed.out.splitlines() if line.startswith("config: backbone="))
    arguments = eval(config.removeprefix("config: backbone="))
    assert arguments.pop("type") == "VanillaNet"
    weights = {
        key.removeprefix("backbone."): tensor
        for key, tensor in written["state_dict"].items()
        if key.startswith("backbone.")
    }
    VanillaNet(**arguments).load_state_dict(weights, strict=True)


def test_published_widths_are_recognised(tmp_path):
    # The shapes are real, the numbers take no room: each tensor is one number, expanded.
    with torch.device("meta"):
        shapes = authors_model(ARCHS["5"].dims, 4, 1000).state_dict()
    weights = {key: torch.zeros((), dtype=v.dtype).expand(v.shape) for key, v in shapes.items()}
    torch.save(dict(model=weights), tmp_path / "best.pth")
    assert (tmp_path / "best.pth").stat().st_size < 1e6
    out = tmp_path / "out.pth"
    converted, found = convert_and_write(tmp_path / "best.pth", out, target="backbone")
    assert (converted["meta"]["arch"], found.act_num, found.kind) == ("5", 4, "backbone")


def _detector_cfg(name):

    base = {"mask-rcnn": "mask-rcnn_r50_fpn", "retinanet": "retinanet_r50_fpn"}[name]
    cfg = Config.fromfile(_base_file(base)).model
    arch = dict(dims=(8, 8, 16, 16, 24), strides=(1, 2, 2, 2))
    cfg.backbone = dict(type="VanillaNet", arch=arch, act_num=4)
    cfg.neck.in_channels = [8, 16, 16, 24]
    return cfg, arch["dims"]


def _base_file(base):
    import mmdet

    return Path(mmdet.__file__).parent / ".mim/configs/_base_/models" / f"{base}.py"


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize(
    ("name", "names"), [("mask-rcnn", MASK_RCNN_2X), ("retinanet", RETINANET_2X)]
)
def test_a_detector_of_mmdetection_2(tmp_path, name, names):
    """Written under 2.x's names it loads strictly into MMDetection 3's model."""
    import mmvanilla.ops  # noqa: F401, I001
    import mmdet.models  # noqa: F401
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope
    from mmengine.runner.checkpoint import load_checkpoint

    cfg, dims = _detector_cfg(name)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(cfg)
    own = model.state_dict()
    weights = {f"backbone.{key}": value for key, value in authors_weights(dims, 4).items()}
    for module in names:
        for part in ("weight", "bias"):
            weights[f"{module}.{part}"] = torch.rand(own[f"{module}.{part}"].shape)
    file = dict(meta=dict(CLASSES=("cat", "dog")), state_dict=weights)
    torch.save(file, tmp_path / "detector.pth")
    checkpoint = load_checkpoint(model, f"vanillanet://{tmp_path}/detector.pth", strict=True)
    assert checkpoint["meta"]["dataset_meta"] == dict(classes=["cat", "dog"])
    loaded = model.state_dict()
    for key, tensor in weights.items():
        if not key.startswith("backbone."):
            assert torch.equal(loaded[key], tensor), key
    assert torch.equal(
        loaded["backbone.blocks.3.act.conv.conv.weight"], weights["backbone.stages.3.act.weight"]
    )
    assert len(loaded) == len(checkpoint["state_dict"])


def test_tool_writes_and_says_what_to_use(tmp_path, run_tool):
    out = tmp_path / "out.pth"
    convert = partial(run_tool, "convert_checkpoint")
    status, printed = convert(DATA / "tiny7_act4.official.pth", out, "--strides", 1, 2, 2, 2, 1)
    assert (status, printed.err) == (0, "")
    assert "act_num=4, training form, from model_ema" in printed.out
    assert "head=dict(type='VanillaNetClsHead', num_classes=10, in_channels=64)" in printed.out
    written = torch.load(out, weights_only=True)
    assert f"{len(written['state_dict'])} tensors of a classifier" in printed.out
    status, printed = convert(DATA / "tiny5.official.pth", out, "--strides", 2, 2, 2)
    assert status == 1 and "exists already; pass --overwrite" in printed.err
    args = ("--arch", '{"dims": [16, 32, 64, 128], "strides": [2, 2, 2]}', "--overwrite")
    status, printed = convert(DATA / "tiny5.official_deploy.pth", out, *args)
    assert status == 0 and "deploy=True" in printed.out and "from state dict" in printed.out


def _write_nan(path):
    weights = authors_weights(DIMS)
    weights["stages.1.act.bn.bias"][3] = float("nan")
    torch.save(dict(model=weights), path)


def _truncate(path):
    whole = (DATA / "tiny5.official.pth").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("write", "args", "message"),
    [
        (_truncate, (), "cannot be read as a checkpoint"),
        (_write_nan, (), "stages.1.act.bn.bias has values from nan"),
        (lambda path: path.write_text("text"), (), "in.pth"),
        (lambda path: None, (), "no such file"),
        (lambda path: torch.save({"fc.weight": torch.zeros(1)}, path), (), "not VanillaNet"),
        (lambda path: torch.save(authors_weights(DIMS), path), (), "--strides"),
        (lambda path: torch.save(authors_weights(DIMS), path), ("--arch", "13"), "arch='13' has"),
        (
            lambda path: torch.save(authors_weights(DIMS), path),
            ("--arch", "{dims"),
            "not valid JSON",
        ),
    ],
)
def test_tool_fails_in_one_line_and_writes_nothing(run_tool, tmp_path, write, args, message):
    write(tmp_path / "in.pth")
    before = sorted(tmp_path.iterdir())
    paths = tmp_path / "in.pth", tmp_path / "out.pth"
    status, printed = run_tool("convert_checkpoint", *paths, *args)
    assert status == 1
    assert printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert message in printed.err
    assert sorted(tmp_path.iterdir()) == before
