"""train, test and fuse as a user does it: by the command line, on a small set of shapes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import ROOT

CONFIG = str(ROOT / "configs" / "shapes" / "maskrcnn_vanillanet_shapes.py")
pytestmark = [pytest.mark.slow, pytest.mark.toolbox("mmdet")]

FEW = [
    "train_cfg.max_epochs=2",
    "train_cfg.val_interval=2",
    "param_scheduler.1.end=2",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "val_dataloader.num_workers=0",
    "val_dataloader.persistent_workers=False",
    "test_dataloader.num_workers=0",
    "test_dataloader.persistent_workers=False",
]


@pytest.fixture(scope="module")
def run(forked_tools):
    """Run a tool in a folder, and look at its exit status; returns what it printed and left."""

    def run(tool, *arguments, cwd, code=0):
        outcome = forked_tools.run(tool, *arguments, folder=cwd, timeout=600)
        assert outcome.status == code, outcome.output[-3000:] + outcome.errors[-3000:]
        return outcome

    return run


def only_error(outcome):
    lines = [line for line in outcome.errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in outcome.errors
    return lines[0]


def metrics(work_dir):
    (scalars,) = sorted(work_dir.glob("*/*.json"))[-1:]
    return json.loads(scalars.read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run):
    """A folder with data and a Mask R-CNN trained for two epochs of four steps."""
    folder = tmp_path_factory.mktemp("user") / "home"
    make_shapes(folder / "data" / "shapes", layouts=("coco",), num_train=16, num_val=4)
    run("train.py", CONFIG, "--work-dir", "out", "--cfg-options", *FEW, cwd=folder)
    assert (folder / "out" / "epoch_2.pth").is_file()
    return folder


def test_fused_detector_tests_as_before_with_pictures(run, trained):
    run("fuse_backbone.py", CONFIG, "out/epoch_2.pth", "fused.pth", cwd=trained)
    before = ("test.py", CONFIG, "out/epoch_2.pth", "--work-dir", "before", "--out", "raw.pkl")
    run(*before, "--cfg-options", *FEW, cwd=trained)
    after = ("test.py", "fused.py", "fused.pth", "--work-dir", "after", "--show-dir", "pictures")
    run(*after, "--cfg-options", *FEW, cwd=trained)
    expected, found = (metrics(trained / name) for name in ("before", "after"))
    for key in ("coco/bbox_mAP", "coco/segm_mAP"):
        assert found[key] == pytest.approx(expected[key], abs=1e-3)
    assert (trained / "raw.pkl").stat().st_size > 0
    # Inside of the folder of the run, as MMDetection's own tool has it.
    assert len(list((trained / "after").glob("*/pictures/*.png"))) == 4
    assert not (trained / "pictures").exists()


def test_training_resumes(run, trained):
    options = [*FEW[3:], "train_cfg.max_epochs=3", "train_cfg.val_interval=3"]
    result = run(
        "train.py", CONFIG, "--work-dir", "out", "--resume", "--cfg-options", *options, cwd=trained
    )
    assert "resumed epoch: 2" in result.output + result.errors
    assert (trained / "out" / "epoch_3.pth").is_file()


def own_tool(name):
    import mmdet

    path = Path(mmdet.__file__).parent / ".mim" / "tools" / name
    if not path.is_file():
        pytest.skip("this MMDetection was installed without its tools")
    return str(path)


def test_mmdetections_own_training_runs_our_configs(run, trained):
    options = ("--work-dir", "own_train", "--cfg-options", *FEW, "train_cfg.max_epochs=1")
    run(own_tool("train.py"), CONFIG, *options, cwd=trained)
    assert (trained / "own_train" / "epoch_1.pth").is_file()


def test_mmdetections_own_test_runs_our_configs(trained):
    """In a process of its own, where nothing but the config imports mmvanilla."""
    command = [sys.executable, own_tool("test.py"), CONFIG, "out/epoch_2.pth"]
    result = subprocess.run(
        [*command, "--work-dir", "own_test", "--cfg-options", *FEW],
        cwd=trained,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "coco/bbox_mAP" in result.stdout + result.stderr


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_errors_are_one_line_and_leave_nothing(run, empty):
    data = only_error(run("train.py", CONFIG, cwd=empty, code=1))
    assert "data/shapes/coco/ is not there" in data
    assert "mmvanilla make_shapes data/shapes" in data
    coco = str(ROOT / "configs" / "maskrcnn_vanillanet.py")
    data = only_error(run("train.py", coco, cwd=empty, code=1))
    assert "data/coco/ is not there" in data and "mmvanilla demo" in data
    assert "no config" in only_error(run("train.py", "nowhere.py", cwd=empty, code=1))
    missing = run("test.py", CONFIG, "nowhere.pth", cwd=empty, code=1)
    assert "no checkpoint at nowhere.pth" in only_error(missing)
    (empty / "other.pth").write_bytes(b"no checkpoint")
    torch.save(dict(state_dict={"conv.weight": torch.ones(1)}), empty / "foreign.pth")
    for name in ("other.pth", "foreign.pth", "nowhere.pth"):
        only_error(run("fuse_backbone.py", CONFIG, name, "fused.pth", cwd=empty, code=1))
    assert {path.name for path in empty.iterdir()} == {"other.pth", "foreign.pth"}


def test_debug_shows_the_traceback(run, empty):
    result = run("test.py", CONFIG, "nowhere.pth", "--debug", cwd=empty, code=1)
    assert "Traceback" in result.errors and "error: no checkpoint" in result.errors
