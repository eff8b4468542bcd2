"""Two processes over gloo train and test with the metrics that each toolbox really uses."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import CONFIGS, ROOT

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="two processes of these would need two GPUs"
)

# The model is as small as its config allows, and learns nothing in the one step that it takes.
COMMON = """
_base_ = [{base!r}]
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
custom_hooks = []
"""
CONFIG = {
    "classifier": COMMON
    + """
train_cfg = dict(max_epochs=1)
model = dict(backbone=dict(width_mult=1 / 64), head=dict(in_channels=64))
""",
    "segmenter": COMMON
    + """
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
model = dict(
    backbone=dict(width_mult=1 / 64),
    decode_head=dict(in_channels=[8, 16, 32, 64], channels=8, norm_cfg=dict(type="SyncBN")),
    auxiliary_head=dict(in_channels=32, channels=8),
)
""",
    "detector": COMMON
    + """
train_cfg = dict(max_epochs=1, val_interval=1)
model = dict(test_cfg=dict(rcnn=dict(max_per_img=10)))
""",
}
BASES = {
    "classifier": "vanillanet_shapes.py",
    "segmenter": "upernet_vanillanet_shapes.py",
    "detector": "maskrcnn_vanillanet_shapes.py",
}
NUM_IMAGES = 6


def launch(program: str, *arguments: object, folder: Path, processes: int = 2) -> str:
    """Start a program in several processes, which must not fail, and return what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    # A port of its own, since several tests may run at once.
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", program]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=folder,
        env=dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=paths),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def train_and_test(kind: str, layout: str, folder: Path) -> list[dict]:
    make_shapes(
        folder / "data" / "shapes", [layout], num_train=4, num_val=NUM_IMAGES, image_size=64
    )
    config = folder / "config.py"
    config.write_text(CONFIG[kind].format(base=str(CONFIGS / "shapes" / BASES[kind])))
    program = str(ROOT / "tests" / "engine" / "train_and_test.py")
    launch(program, config, folder / "work", folder=folder)
    files = [folder / "work" / f"rank{rank}.pth" for rank in range(2)]
    first, second = (torch.load(file, weights_only=False) for file in files)
    # The gradients are averaged, so the parameters stay equal; each process has its own statistics.
    for key, value in first["weights"].items():
        if "running_" not in key:
            assert torch.equal(second["weights"][key], value), key
    # Every image was predicted once, by one of the processes.
    predictions = pickle.loads((folder / "work" / "out.pkl").read_bytes())
    assert len(predictions) == NUM_IMAGES
    return [first["metrics"], second["metrics"]]


@pytest.mark.toolbox("mmpretrain")
def test_a_classifier(tmp_path):
    first, second = train_and_test("classifier", "imagenet", tmp_path)
    assert first == second and 0 <= first["accuracy/top1"] <= 100


@pytest.mark.exhaustive
@pytest.mark.toolbox("mmseg")
def test_a_segmenter(tmp_path):
    first, second = train_and_test("segmenter", "ade20k", tmp_path)
    assert first == second and 0 <= first["mIoU"] <= 100


@pytest.mark.exhaustive
@pytest.mark.toolbox("mmdet")
def test_a_detector(tmp_path):
    first, second = train_and_test("detector", "coco", tmp_path)
    assert first == second and "coco/bbox_mAP" in first and "coco/segm_mAP" in first
