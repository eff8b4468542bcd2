"""What the tools say about bad input, and the toolbox's own tools with our configs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import CONFIGS, ROOT

pytestmark = pytest.mark.toolbox("mmdet")

CONFIG = "shapes/maskrcnn_vanillanet_shapes.py"
LOADERS = [f"{split}_dataloader" for split in ("train", "val", "test")]
FEW = ["--cfg-options", "train_cfg.max_epochs=1", "custom_hooks.0.decay_epochs=0"]
FEW += ["default_hooks.checkpoint.interval=1"]
FEW += [f"{loader}.num_workers=0" for loader in LOADERS]
FEW += [f"{loader}.persistent_workers=False" for loader in LOADERS]


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("train", (CONFIG,), "cannot be trained"),
        ("train", (CONFIG, "--no-check"), "error: data/shapes"),
        ("train", ("nowhere.py",), "no config at nowhere.py"),
        ("test", (CONFIG, "nowhere.pth"), "nowhere.pth"),
        ("fuse_backbone", (CONFIG, "other.pth", "fused.pth"), "other.pth"),
        ("fuse_backbone", (CONFIG, "foreign.pth", "fused.pth"), "foreign.pth"),
        ("get_flops", ("text.py",), "text.py"),
        ("visualize", ("predict", CONFIG, "foreign.pth", "nothing", "out"), "nothing"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(run_tool, tmp_path, tool, arguments, words):
    (tmp_path / "other.pth").write_bytes(b"no checkpoint")
    (tmp_path / "text.py").write_text("this is no Python\n")
    torch.save(dict(state_dict={"conv.weight": torch.ones(1)}), tmp_path / "foreign.pth")
    status, printed = run_tool(tool, *arguments)
    assert status == 1
    (line,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert words in line and "Traceback" not in printed.err
    left = {path.name for path in tmp_path.iterdir()} - {"work_dirs"}
    assert left == {"other.pth", "foreign.pth", "text.py"}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("toolbox", "config", "metric"),
    [
        ("mmdet", CONFIG, "coco/bbox_mAP"),
        ("mmpretrain", "shapes/vanillanet_shapes.py", "accuracy/top1"),
    ],
)
def test_the_toolboxs_own_tools_run_our_configs(tmp_path, toolbox, config, metric):
    """In processes of their own, where nothing but the operators and the config are ours."""
    tools = Path(pytest.importorskip(toolbox).__file__).parent / ".mim" / "tools"
    if not tools.is_dir():
        pytest.skip(f"this {toolbox} was installed without its tools")
    make_shapes(tmp_path / "data" / "shapes", ["coco", "imagenet"], num_train=8, num_val=4)
    train = [tools / "train.py", CONFIGS / config, "--work-dir", "out", *FEW]
    test = [tools / "test.py", CONFIGS / config, "out/epoch_1.pth", "--work-dir", "tested", *FEW]
    script = "import runpy, sys, mmvanilla.ops; del sys.argv[0]; "
    script += "runpy.run_path(sys.argv[0], run_name='__main__')"
    for command in (train, test):
        done = subprocess.run(
            [sys.executable, "-c", script, *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert metric in done.stdout + done.stderr
