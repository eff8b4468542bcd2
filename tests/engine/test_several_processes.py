"""Two processes over gloo train, resume and test with the metrics of each toolbox."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODEL_WRAPPERS
from torch import distributed

from mmvanilla.datasets.shapes import make_shapes
from mmvanilla.engine import cpu_distributed
from tests import toy_training
from tests.helpers import CONFIGS, ROOT

# The model is as small as its config allows, and learns nothing in the few steps that it takes.
COMMON = """
_base_ = [{base!r}]
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
custom_hooks = [dict(type="ReseedHook")]
randomness = dict(seed=0)
"""
CONFIG = {
    "classifier": COMMON
    + """
train_cfg = dict(max_epochs=2)
default_hooks = dict(checkpoint=dict(interval=1))
model = dict(
    backbone=dict(width_mult=1 / 64, norm_cfg=dict(type="SyncBN", eps=1e-6)),
    head=dict(in_channels=64, topk=(1,)),
)
custom_hooks += [dict(type="DeepTrainingHook", decay_epochs=2), dict(type="EMAHook")]
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
CONFIG["merging"] = CONFIG["classifier"].replace("decay_epochs=2", "decay_epochs=1, merge=True")
BASES = {
    "classifier": "vanillanet_shapes.py",
    "merging": "vanillanet_shapes.py",
    "segmenter": "upernet_vanillanet_shapes.py",
    "detector": "maskrcnn_vanillanet_shapes.py",
}
NUM_IMAGES = 6
RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # torchrun sets these


def launch(*program: object, folder: Path, fails: bool = False) -> str:
    """Start a program in two processes, and return what they printed."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    # A port of its own, since several tests may run at once.
    torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    kept = {key: value for key, value in os.environ.items() if key not in RANKS}
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*torchrun, *map(str, program)],
        cwd=folder,
        env={**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert (done.returncode != 0) == fails, done.stdout[-4000:]
    return done.stdout


def write_config(kind: str, layout: str, folder: Path) -> Path:
    shapes = folder / "data" / "shapes"
    make_shapes(shapes, [layout], num_train=4, num_val=NUM_IMAGES, image_size=64)
    config = folder / "config.py"
    config.write_text(CONFIG[kind].format(base=str(CONFIGS / "shapes" / BASES[kind])))
    return config


def train_and_test(kind: str, layout: str, folder: Path) -> tuple[dict, dict, str]:
    program = ROOT / "tests" / "engine" / "train_and_test.py"
    printed = launch(program, write_config(kind, layout, folder), folder / "work", folder=folder)
    files = [folder / "work" / f"rank{rank}.pth" for rank in range(2)]
    first, second = (torch.load(file, weights_only=False) for file in files)
    assert first["metrics"] == second["metrics"]
    # The gradients are averaged, so the weights stay equal; each process has its own statistics.
    for ours, theirs in zip(first["weights"], second["weights"], strict=True):
        for key, value in ours.items():
            assert torch.equal(theirs[key], value) or "running_" in key, key
    # Every image was predicted once, by one of the processes.
    assert len(pickle.loads((folder / "work" / "out.pkl").read_bytes())) == NUM_IMAGES
    return first, second, printed


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize(("kind", "lambdas"), [("classifier", [0.5] * 2), ("merging", [None] * 2)])
def test_a_classifier(tmp_path, kind, lambdas):
    first, second, printed = train_and_test(kind, "imagenet", tmp_path)
    assert 0 <= first["metrics"]["accuracy/top1"] <= 100
    assert first["lambdas"] == second["lambdas"] == lambdas
    assert ("are merged" in printed) == (kind == "merging")
    assert "no GPU: SyncBN layers become BN" in printed
    # Of the statistics, a checkpoint has those of the first process.
    for key, value in first["weights"][0].items():
        assert torch.allclose(first["resumed"]["weights"][0][key], value, rtol=1e-3), key


@pytest.mark.exhaustive
@pytest.mark.toolbox("mmseg")
def test_a_segmenter(tmp_path):
    first, _, _ = train_and_test("segmenter", "ade20k", tmp_path)
    assert 0 <= first["metrics"]["mIoU"] <= 100


@pytest.mark.exhaustive
@pytest.mark.toolbox("mmdet")
def test_a_detector(tmp_path):
    first, _, _ = train_and_test("detector", "coco", tmp_path)
    assert {"coco/bbox_mAP", "coco/segm_mAP"} <= first["metrics"].keys()


@pytest.mark.exhaustive
@pytest.mark.toolbox("mmpretrain")
def test_the_command_line(tmp_path):
    config = write_config("classifier", "imagenet", tmp_path)
    options = ("--launcher", "pytorch", "--work-dir", tmp_path / "work")
    launch("-m", "mmvanilla", "train", config, *options, folder=tmp_path)
    arguments = (config, tmp_path / "work" / "epoch_2.pth", "--out", "x.pkl", *options)
    printed = launch("-m", "mmvanilla", "test", *arguments, folder=tmp_path)
    assert "accuracy/top1" in printed
    config.write_text(config.read_text().replace("decay_epochs", "decay_epoch"))
    printed = launch("-m", "mmvanilla", "train", config, *options, folder=tmp_path, fails=True)
    assert printed.count("cannot be trained") == 1 and "decay_epoch" in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="gloo is for machines without a GPU")
def test_one_process_of_torchrun_and_other_launchers(monkeypatch):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match="--launcher pytorch: .* torchrun must start"):
        cpu_distributed.prepare(Config(dict(launcher="pytorch")))
    for name, value in zip(RANKS, ("0", "1", "0", "127.0.0.1", "0"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="--launcher slurm: .* torchrun must start"):
        cpu_distributed.prepare(Config(dict(launcher="slurm")))
    cfg = Config(dict(launcher="pytorch", find_unused_parameters=True))
    try:
        cpu_distributed.prepare(cfg)
        assert distributed.get_backend() == "gloo"
        model = torch.nn.Conv2d(3, 4, 1)
        wrapper = MODEL_WRAPPERS.build(
            cfg.model_wrapper_cfg, default_args=dict(module=model, device_ids=[0])
        )
        assert wrapper.find_unused_parameters and not wrapper.broadcast_buffers
        wrapper(torch.rand(2, 3, 32, 32)).sum().backward()
    finally:
        cpu_distributed.finish()
    assert not distributed.is_initialized()


def test_without_a_launcher_nothing_changes(tmp_path):
    cfg = Config.fromfile(toy_training.write_config(tmp_path / "config.py"))
    before = cfg.to_dict()
    cpu_distributed.prepare(cfg)
    cpu_distributed.finish()
    assert cfg.to_dict() == before
