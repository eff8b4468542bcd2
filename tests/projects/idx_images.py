"""Images in the files of Fashion-MNIST, for tests: ten classes that are easy to tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.fashion_files import idx_bytes


def write_idx_images(folder: Path, num_train: int = 40, num_test: int = 20) -> Path:
    """Write 28×28 pixels of noise with a bright bar, whose place is the class."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for name, count in (("train", num_train), ("t10k", num_test)):
        labels = np.arange(count) % 10
        images = generator.integers(0, 80, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[label : label + 4] += 150
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


def tiny_config(data_root: Path, **ablations: dict) -> str:
    """A config for trainings of seconds on these images, with the given rows."""
    return f"""
_base_ = [__import__("mmvanilla").config_path("ablations/vanillanet6_fashion_mnist.py")]
arch = dict(dims=(4, 8), strides=(2,), stem_stride=4, stem_padding=0)
model = dict(backbone=dict(arch=arch), head=dict(in_channels=8))
train_dataloader = dict(batch_size=10, dataset=dict(data_root={str(data_root)!r}, indices=20))
val_dataloader = dict(batch_size=10, dataset=dict(data_root={str(data_root)!r}))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2, val_interval=2)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=2)]
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=1)]
ablations = dict(_delete_=True, **{ablations or dict(full={})!r})
"""
