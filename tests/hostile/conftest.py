"""What the hostile cases share: the server of the tools, and a user's folder that is in order."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.authors_model import authors_weights
from tests.hostile.rule import Tools

CONFIG = """
custom_imports = dict(imports=["mmvanilla", "mmvanilla.cls_head"], allow_failed_imports=False)
_base_ = ["mmpretrain::_base_/default_runtime.py"]
model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="VanillaNet", arch=dict(dims=(8, 8, 16), strides=(2, 2)), out_indices=(-1,)
    ),
    head=dict(type="VanillaNetClsHead", num_classes=2, in_channels=16),
)
data_preprocessor = dict(mean=[128.0] * 3, std=[64.0] * 3, to_rgb=True)
pipeline = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="CustomDataset", data_root="data/train", pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="CustomDataset", data_root="data/val", pipeline=pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy", topk=(1,))
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3))
work_dir = "work"
randomness = dict(seed=0)
"""
PRETRAINED = """
_base_ = ["good.py"]
model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="broken.pth", prefix="backbone."))
)
"""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, forked_tools: Tools) -> Path:
    """A user's folder: data, a config, a checkpoint that this config trained, an ONNX file."""
    import cv2

    home = tmp_path_factory.mktemp("template") / "home"
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            folder = home / "data" / split / label
            folder.mkdir(parents=True)
            for index in range(2):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                cv2.imwrite(str(folder / f"{index}.png"), pixels)
    (home / "good.py").write_text(CONFIG)
    (home / "pretrained.py").write_text(PRETRAINED)
    trained = forked_tools.run("train.py", "good.py", folder=home)
    assert trained.status == 0, trained.errors
    shutil.move(home / "work" / "epoch_1.pth", home / "good.pth")
    shutil.rmtree(home / "work")
    exported = forked_tools.run("export_onnx.py", "good.py", "good.pth", "good.onnx", folder=home)
    assert exported.status == 0, exported.errors
    weights = authors_weights((8, 8, 16, 24), act_num=3, num_classes=2)
    torch.save({"model": weights}, home / "authors.pth")
    return home


@pytest.fixture
def home(tmp_path: Path, template: Path) -> Path:
    """A copy of the user's folder for one case."""
    return shutil.copytree(template, tmp_path / "home")


@pytest.fixture
def address(home: Path) -> Iterator[str]:
    """The user's folder as a web server on the loopback serves it."""
    handler = functools.partial(_Quiet, directory=str(home))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass
