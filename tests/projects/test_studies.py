"""A study in seconds: rows are trained, fused, kept and tabulated, and not trained twice."""

import copy
import json
import re

import pytest
import torch

from mmvanilla import VanillaNet, equalise, fuse_model
from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model
from mmvanilla.datasets.shapes import make_shapes
from mmvanilla.models.merging import merge_pairs
from mmvanilla.utils.numerics import largest, relative_difference
from projects.studies import (
    compare_backbones,
    compare_precisions,
    compare_ranges,
    compare_trainings,
    shortcuts,
)
from tests.fashion_files import write_fashion_mnist
from tests.helpers import ROOT, randomise
from tests.helpers import TINY as SMALL
from tools import fuse_backbone

pytestmark = [pytest.mark.exhaustive, pytest.mark.toolbox("mmpretrain")]

STUDIES = ROOT / "projects" / "studies" / "configs"
TINY = """
_base_ = [{base!r}]
arch = dict(dims=(4, 8), strides=(2,), stem_stride=4, stem_padding=0)
model = dict(backbone=dict(arch=arch), head=dict(in_channels=8))
data = {data!r}
train_dataloader = dict(batch_size=10, dataset=dict(data_root=data, indices=20))
val_dataloader = dict(batch_size=10, dataset=dict(data_root=data))
test_dataloader = dict(batch_size=10, dataset=dict(data_root=data))
train_cfg = dict(max_epochs=2, val_interval=2)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=2)]
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=1)]
"""
CHOICE = ["--choose", "optim_wrapper.optimizer.lr", "1e-3", "1e-2", "--choose-on"]
HELD_OUT = ["val_dataloader.dataset.test_mode=False", "val_dataloader.dataset.indices=-10"]
HELD_OUT += ["val_dataloader.dataset.split=train"]


@pytest.fixture
def config(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(ROOT)  # as a user does: the processes of the trainings import `projects`
    data = write_fashion_mnist(tmp_path / "data", per_class=3, compressed=False)
    path = tmp_path / "tiny.py"
    base = str(STUDIES / "vanillanet6_fashion_mnist.py")
    path.write_text(TINY.format(base=base, data=str(data)))
    return str(path)


def test_rows_are_trained_once_and_tabulated(config, tmp_path, capsys):
    page, store = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text("before\n<!-- begin of table: t -->\n<!-- end of table: t -->\nafter\n")
    args = [config, "--work-dir", str(tmp_path / "work"), "--results", str(store), "--jobs", "2"]
    args += ["--switches", "full", "plain", "--seeds", "0", "1"]
    args += [*CHOICE, *HELD_OUT, "--write", str(page), "t"]
    assert compare_trainings.main([*args, "--rounds", "2"]) == 0
    results = json.loads(store.read_text())
    assert len(results) == 2 * (2 + 2)  # of each row the choice of two, and two seeds
    said = capsys.readouterr().out
    assert "(from before)" not in said and "latency, ms" in said
    assert said.count("chose lr=") == 2
    wrong = [arg for arg in args if not arg.endswith("test_mode=False")]  # ten test images
    assert compare_trainings.main(wrong) == 1
    assert "a value would be chosen on the data whose results" in capsys.readouterr().err
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("result.json")}
    assert len(times) == 8
    assert compare_trainings.main(args) == 0
    assert capsys.readouterr().out.count("(from before)") == 8
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    before, *table, after = page.read_text().splitlines()
    assert (before, after) == ("before", "after")
    rows = [line.split("|")[2].strip() for line in table if line.startswith("| tiny")]
    assert rows == ["`full`", "`plain`"]
    for result in results.values():
        assert result["fused"] in (None, result["trained"])


def test_rows_with_shortcuts_train_and_fuse(config, tmp_path, capsys):
    rows = ["shortcut_before_act", "shortcut_after_act"]
    args = [config, "--switches", *rows, "--seeds", "0", "--work-dir", str(tmp_path / "work")]
    assert compare_trainings.main(args) == 0
    assert re.findall(r"`(\w+)` .* 0\.000 ", capsys.readouterr().out) == rows
    for folder, _ in zip((tmp_path / "work").iterdir(), rows, strict=True):
        (own,), out = folder.glob("*.py"), folder / "fused.pth"
        assert fuse_backbone.main([str(own), str(folder / "epoch_2.pth"), str(out)]) == 0


@pytest.mark.parametrize("name", ["Early", "Late"])
@torch.no_grad()
def test_every_form_of_a_network_with_shortcuts_computes_the_same(name):
    kind = getattr(shortcuts, f"{name}ShortcutVanillaNet")
    net = randomise(kind(SMALL)).double().eval()
    fused, merged, deploy = fuse_model(net), copy.deepcopy(net), kind(SMALL, deploy=True).double()
    deploy.load_state_dict(net.state_dict())
    assert len(merge_pairs(merged)) == 5
    plain = (VanillaNet if name == "Early" else kind)(SMALL, deploy=True).double()
    plain.load_state_dict(fused.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for form in (fused, merged, deploy, plain):
        assert largest(map(relative_difference, net(images), form(images))) < 1e-9
    with pytest.raises(ValueError, match="ShortcutBlock: only VanillaBlocks"):
        equalise(fused)
    block, x = net.blocks[1], torch.randn(2, 8, 8, 8, dtype=torch.float64)
    if name == "Early":
        expected = block.act(block.pool(block.conv.conv(x) + block.conv.shortcut(x)))
    else:
        expected = block.act(block.pool(block.conv(x))) + block.pool(block.shortcut(x))
    assert torch.equal(block(x), expected)


def test_a_failed_training_is_named_and_the_others_go_on(config, tmp_path, capsys):
    args = [config, "--work-dir", str(tmp_path / "work"), "--seeds", "0"]
    broken = config.replace("tiny", "broken")
    with open(broken, "w") as file:
        file.write(f"_base_ = [{config!r}]\noptim_wrapper = dict(optimizer=dict(lr='none'))\n")
        file.write("ablations = dict(_delete_=True, bad={})\n")
    assert compare_trainings.main([broken, *args, "--switches", "bad", "plain"]) == 1
    printed = capsys.readouterr()
    assert "failed: broken bad, seed 0; see" in printed.out and "1 runs failed" in printed.err
    assert "| tiny | `plain` | 1 |" in printed.out


@pytest.mark.parametrize("page", ["ablations", "fashion_mnist", "garments"])
def test_the_tables_of_the_docs_come_from_the_kept_results(page, tmp_path, capsys, monkeypatch):
    """The digests of configs, options and seeds still find what was measured."""
    monkeypatch.chdir(ROOT)
    if page == "ablations":
        names = ["vanillanet6", "resnet18", "alexnet"]
        args = [str(STUDIES / f"{name}_fashion_mnist.py") for name in names]
        args += ["--choose", "optim_wrapper.optimizer.lr", "3e-3", "1e-2", "3e-2", "--choose-on"]
        args += [f"{arg}000" if arg.endswith("-10") else arg for arg in HELD_OUT]
    elif page == "garments":
        folder = ROOT / "projects" / "toy_data" / "configs"
        args = [str(path) for path in sorted(folder.glob("*.py"))] + ["--seeds", "0"]
    else:
        args = ["small/vanillanet_fashion_mnist.py", "small/resnet_fashion_mnist.py"]
    store = f"docs/results/{page}.json"
    work_dir = str(tmp_path / "none")
    args += ["--jobs", "0", "--results", store, "--work-dir", work_dir]
    assert compare_trainings.main(args) == 0
    printed = capsys.readouterr().out
    assert "not in the table" not in printed
    if page == "ablations":  # whose table has no times of another run
        table = printed[printed.index("| network") :].strip()
        assert table in (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")


def test_precisions_are_measured_side_by_side(config, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    work = tmp_path / "work"
    args = [config, "--work-dir", str(work), "--seeds", "0", "--switches", "full"]
    assert compare_trainings.main(args) == 0
    (checkpoint,) = work.rglob("epoch_2.pth")
    capsys.readouterr()
    args = ["--calibration-images", "4", "--test-images", "8", "--rounds", "2"]
    assert compare_precisions.main([config, str(checkpoint), *args]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    cells = {line.split("|")[1].strip(): line.split("|")[2:] for line in lines}
    assert {"PyTorch fp32, as trained", "PyTorch fp32, fused"} <= set(cells)
    for weights in ("plain", "equalised"):
        assert f"ONNX Runtime int8, {weights}, a scale a layer, 4 images" in cells
        assert float(cells[f"ONNX Runtime fp32, {weights}"][1]) == 100  # as the network as trained
    args = ["--archs", "5", "--shape", "64", "64", "--images", "1"]
    assert compare_ranges.main([config, str(checkpoint), *args]) == 0
    assert {"| VanillaNet-5, as initialised", "| tiny, trained"} <= {
        line.rsplit(" |", 5)[0] for line in capsys.readouterr().out.splitlines()
    }


@pytest.mark.toolbox("mmseg")
def test_int8_backbones_are_measured_inside_their_model(tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    make_shapes(tmp_path / "data" / "shapes", num_train=4, num_val=2, image_size=32)
    config = "shapes/upernet_vanillanet_shapes.py"
    model = build_model(load_config(config)).eval()
    torch.save(dict(state_dict=model.state_dict(), meta={}), "net.pth")
    assert compare_backbones.main([config, "net.pth", "--calibration-images", "2"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    cells = {line.split("|")[1].strip(): line.split("|")[2:] for line in lines}
    given = cells["PyTorch fp32, as given"]
    assert cells["backbone"] == [" aAcc ", " mIoU ", " mAcc ", ""]
    for weights in ("plain", "equalised"):
        assert cells[f"ONNX Runtime fp32, {weights}"] == given
        assert f"ONNX Runtime int8, {weights}, a scale a layer, 2 images" in cells
