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
FEW += [f"{loader}.num_workers=0" for loader in LOADERS]
FEW += [f"{loader}.persistent_workers=False" for loader in LOADERS]


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("train", (CONFIG,), "data/shapes"),
        ("train", ("nowhere.py",), "no config at nowhere.py"),
        ("train", ("maskrcnn_vanilanet_shapes",), "did you mean shapes/maskrcnn"),
        ("get_flops", ("vanilanet_shapes.py",), "did you mean shapes/vanillanet_shapes.py"),
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


def own_tool(name: str) -> str:
    import mmdet

    path = Path(mmdet.__file__).parent / ".mim" / "tools" / name
    if not path.is_file():
        pytest.skip("this MMDetection was installed without its tools")
    return str(path)


@pytest.mark.exhaustive
def test_the_toolboxs_own_tools_run_our_configs(tmp_path):
    """In processes of their own, where nothing but the config imports mmvanilla."""
    make_shapes(tmp_path / "data" / "shapes", layouts=("coco",), num_train=8, num_val=4)
    config = str(CONFIGS / CONFIG)
    train = [own_tool("train.py"), config, "--work-dir", "out", *FEW]
    test = [own_tool("test.py"), config, "out/epoch_1.pth", "--work-dir", "tested", *FEW]
    for command in (train, test):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert "coco/bbox_mAP" in done.stdout + done.stderr
