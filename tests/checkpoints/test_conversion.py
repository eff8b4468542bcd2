"""Converting the authors' files, as a library and by tools/convert_checkpoint.py."""

import argparse
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmvanilla import ARCHS, Arch, VanillaNet, fuse_model, resolve_arch
from mmvanilla.checkpoints.conversion import convert_checkpoint, identify_arch
from tests.authors_model import authors_weights
from tests.helpers import DATA, backbone_of

DIMS = (8, 16, 24)
ARCH = dict(dims=DIMS, strides=(2, 1))
TINY5 = json.dumps(dict(dims=(16, 32, 64, 128), strides=(2, 2, 2)))


def test_which_weights_of_a_file():
    weights = {key: authors_weights(DIMS) for key in ("model_ema", "model", "state_dict")}
    for expected in ("model_ema", "model", "state_dict"):
        checkpoint, _ = convert_checkpoint(dict(weights, epoch=3))
        assert checkpoint["meta"]["converted_from"] == expected
        converted = checkpoint["state_dict"]["stem.conv.first.conv.weight"]
        assert torch.equal(converted, weights[expected]["stem1.0.weight"])
        # As a file without averaged weights may have it.
        weights[expected] = {} if expected == "model_ema" else None
    checkpoint, _ = convert_checkpoint(authors_weights(DIMS))
    assert checkpoint["meta"]["converted_from"] == "state dict"


@pytest.mark.parametrize(
    ("epoch", "args", "expected"),
    [
        (40, dict(decay_epochs=100, decay_linear=True), 0.4),
        (40, dict(decay_epochs=100), 0.4),
        (50, dict(decay_epochs=100, decay_linear=False), 0.5),
        (299, dict(decay_epochs=100), 1.0),
        (40, dict(), 1.0),
    ],
)
def test_a_file_from_the_middle_of_training_keeps_its_lambda(epoch, args, expected):
    file = dict(model=authors_weights(DIMS), epoch=epoch, args=argparse.Namespace(**args))
    checkpoint, _ = convert_checkpoint(file)
    compiled = {f"_orig_mod.{key}": value for key, value in file["model"].items()}
    other, _ = convert_checkpoint(dict(model=compiled, epoch=torch.tensor(epoch), args=args))
    assert other["meta"] == checkpoint["meta"]
    assert checkpoint["meta"]["act_lambda"] == pytest.approx(expected)
    model = VanillaNet(ARCH).eval()
    model.load_state_dict(checkpoint["state_dict"])
    assert model.blocks[0].conv.act.act_lambda == pytest.approx(expected)
    if expected < 1:
        with pytest.raises(RuntimeError, match=f"λ = {expected:g}"):
            fuse_model(model)


def test_a_variant_is_named_by_its_widths_or_by_the_user():
    for name in ARCHS:
        assert "1.5x" in name or identify_arch(ARCHS[name].dims) == name
    dims = ARCHS["13-1.5x"].dims
    with pytest.raises(ValueError, match="those of 13-1.5x and 13-1.5x-ada: give --arch"):
        identify_arch(dims)
    assert identify_arch(dims, "13-1.5x-ada") == "13-1.5x-ada"
    with pytest.raises(ValueError, match="which blocks pool.* no published variant"):
        identify_arch(DIMS)
    with pytest.raises(ValueError, match="arch='12' has .* and fit 13"):
        identify_arch(ARCHS["13"].dims, "12")
    arch = dict(dims=[8, 16], strides=[2], adaptive_pools=[4], stem_stride=3, input_size=64)
    whole = Arch((8, 16), (2,), (4,), stem_stride=3, input_size=64)
    assert resolve_arch(identify_arch((8, 16), arch)) == whole


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize("name", ["mask-rcnn", "retinanet"])
def test_a_detector_of_mmdetection_2(tmp_path, name):
    """Its neck and heads keep the names that they have had since 2.x, and it loads strictly."""
    import mmdet
    from mmengine.runner.checkpoint import load_checkpoint

    folder = Path(mmdet.__file__).parent / ".mim/configs/_base_/models"
    cfg = Config.fromfile(folder / f"{name}_r50_fpn.py").model
    dims = (8, 8, 16, 16, 24)
    arch = dict(dims=dims, strides=(1, 2, 2, 2))
    cfg.backbone = dict(type="VanillaNet", arch=arch, act_num=4)
    cfg.neck.in_channels = [8, 16, 16, 24]
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(cfg)
    own = model.state_dict()
    weights = {f"backbone.{key}": value for key, value in authors_weights(dims, 4).items()}
    others = [key for key in own if not key.startswith("backbone.")]
    weights.update({key: torch.rand(own[key].shape) for key in others})
    file = dict(meta=dict(CLASSES=("cat", "dog")), state_dict=weights)
    torch.save(file, tmp_path / "detector.pth")
    checkpoint = load_checkpoint(model, f"vanillanet://{tmp_path}/detector.pth", strict=True)
    assert checkpoint["meta"]["dataset_meta"] == dict(classes=["cat", "dog"])
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in others)
    assert torch.equal(
        loaded["backbone.blocks.3.act.conv.conv.weight"], weights["backbone.stages.3.act.weight"]
    )


def test_the_tool_writes_what_loads_as_it_says(tmp_path, run_tool):
    out = tmp_path / "out.pth"
    convert = partial(run_tool, "convert_checkpoint", DATA / "tiny5.official.pth", out)
    status, printed = convert("--arch", TINY5)
    assert (status, printed.err) == (0, "")
    assert "act_num=3, training form, from model_ema" in printed.out
    assert "head=dict(type='VanillaNetClsHead', num_classes=10, in_channels=128)" in printed.out
    written = torch.load(out, weights_only=True)
    assert set(written) == {"meta", "state_dict"}
    assert f"{len(written['state_dict'])} tensors of a classifier" in printed.out
    arguments = eval(printed.out.partition("config: backbone=")[2].splitlines()[0])
    MODELS.build(arguments).load_state_dict(backbone_of(written["state_dict"]), strict=True)
    status, printed = convert("--arch", TINY5)
    assert status == 1 and "exists already; pass --overwrite" in printed.err
    assert convert("--arch", TINY5, "--overwrite")[0] == 0


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
        (lambda path: None, (), "No such file"),
        (lambda path: torch.save({"fc.weight": torch.zeros(1)}, path), (), "in.pth: these are not"),
        (partial(torch.save, authors_weights(DIMS)), (), "give --arch"),
        (partial(torch.save, authors_weights(DIMS)), ("--arch", "{dims"), "not valid JSON"),
    ],
)
def test_tool_fails_in_one_line_and_writes_nothing(run_tool, tmp_path, write, args, message):
    write(tmp_path / "in.pth")
    before = sorted(tmp_path.iterdir())
    paths = tmp_path / "in.pth", tmp_path / "out.pth"
    status, printed = run_tool("convert_checkpoint", *paths, *args)
    assert status == 1 and printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert message in printed.err
    assert sorted(tmp_path.iterdir()) == before
