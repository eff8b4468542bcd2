"""Train, resume, fuse and test a classifier by the command line, on a CPU and on a GPU with AMP."""

import os
import subprocess
import sys

import pytest

from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import ROOT

CONFIG = str(ROOT / "configs" / "shapes" / "vanillanet_shapes.py")


@pytest.mark.slow
@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize(
    "device",
    [
        pytest.param("cpu", marks=pytest.mark.exhaustive),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ],
)
def test_classifier_from_training_to_the_fused_test(device, tmp_path):
    make_shapes(tmp_path / "data" / "shapes", layouts=("imagenet",), num_train=16, num_val=8)
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}

    def run(tool, *arguments):
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools" / tool), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), **hidden},
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    amp = ["--amp"] if device == "cuda" else []
    train = ("train.py", CONFIG, "--work-dir", "out", *amp)
    run(*train, "--cfg-options", "train_cfg.max_epochs=1")
    log = run(*train, "--resume", "--cfg-options", "train_cfg.max_epochs=2")
    assert "resumed epoch: 1" in log
    run("fuse_backbone.py", CONFIG, "out/epoch_2.pth", "fused.pth", "--force")
    log = run("test.py", "fused.py", "fused.pth", "--work-dir", "test")
    assert "accuracy/top1" in log
