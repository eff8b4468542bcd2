"""A training of seconds without a toolbox, whose hook writes what it saw."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from mmvanilla import get_act_lambda

NUM_CLASSES = 3


@DATASETS.register_module()
class ToyImages(Dataset):
    """Noise whose class is the colour with the highest mean."""

    def __init__(self, length: int = 8, size: int = 64, noise: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(length, 3, size, size, generator=generator)
        self.labels = torch.arange(length) % NUM_CLASSES
        for image, label in zip(self.images, self.labels, strict=True):
            image[label] += 0.5
        self.noise = noise

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = self.images[index]
        if self.noise:  # from numpy's global random state, as the toolboxes' pipelines do
            image = image + self.noise * torch.from_numpy(np.random.randn(*image.shape)).float()
        return dict(inputs=image, label=self.labels[index])


@MODELS.register_module()
class ToyClassifier(BaseModel):
    """A backbone and a linear head behind a norm of its own."""

    def __init__(self, backbone: Any, channels: int, norm_cfg: Any, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        from mmcv.cnn import build_norm_layer

        self.backbone = MODELS.build(backbone)
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.head = nn.Linear(channels, NUM_CLASSES)

    def forward(self, inputs: Tensor, label: Tensor, mode: str = "tensor") -> Any:
        feature = self.norm(self.backbone(inputs)[-1]).mean((2, 3))
        logits = self.head(functional.dropout(feature, self.dropout, self.training))
        if mode == "loss":
            return dict(loss=functional.cross_entropy(logits, label))
        return [(logits.argmax(1) == label).float().mean().item()]


@METRICS.register_module()
class ToyAccuracy(BaseMetric):
    """The mean of what the model returns."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += list(data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(accuracy=sum(results) / len(results))


@HOOKS.register_module()
class Record(Hook):
    """Sets ``runner.seen``: the losses and λ of each iteration, and the final states."""

    priority = "LOWEST"

    def before_train(self, runner) -> None:
        self.losses: list[float] = []
        self.lambdas: list[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs["loss"].item())
        value = get_act_lambda(runner.model)
        self.lambdas.append(1.0 if value is None else value)  # None: the pairs are merged

    def after_train(self, runner) -> None:
        states = {hook.ema_model: "ema" for hook in runner.hooks if isinstance(hook, EMAHook)}
        states[runner.model] = "model"
        runner.seen = {name: copy.deepcopy(model.state_dict()) for model, name in states.items()}
        runner.seen.update(losses=self.losses, lambdas=self.lambdas)


def write_config(path: Path, epochs: int = 4, extra: str = "") -> str:
    """Write a config with a linear λ over 3 epochs of 2 iterations, EMA and BN; return its path."""
    path.write_text(TEXT.format(epochs=epochs) + extra, encoding="utf-8")
    return str(path)


TEXT = """
custom_imports = dict(imports=["mmvanilla", "tests.toy_training"], allow_failed_imports=False)
default_scope = "mmengine"
norm_cfg = dict(type="BN", eps=1e-6)
arch = dict(dims=(8, 8, 16), strides=(1, 2))
model = dict(
    type="ToyClassifier",
    backbone=dict(type="VanillaNet", arch=arch, act_num=1, norm_cfg=norm_cfg),
    channels=16,
    norm_cfg=norm_cfg,
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="ToyImages"),
)
val_dataloader = train_dataloader
val_evaluator = dict(type="ToyAccuracy")
train_cfg = dict(by_epoch=True, max_epochs={epochs}, val_interval=1)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=5e-3, weight_decay=0.05),
    constructor="LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(decay_rate=0.8),
)
randomness = dict(seed=1, deterministic=True)
custom_hooks = [
    dict(type="DeepTrainingHook", decay_epochs=3),
    dict(type="EMAHook", momentum=0.1),
    dict(type="Record"),
]
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=1))
"""


def train(config: str, work_dir: Path, epochs: int | None = None, **options: Any) -> Any:
    """Train by the Runner of `mmvanilla train`, and return that Runner."""
    from mmvanilla.apis.runners import build_train_runner
    from tests.helpers import release

    cfg_options = {**options.pop("cfg_options", {})}
    if epochs is not None:
        cfg_options["train_cfg.max_epochs"] = epochs
    runner = build_train_runner(config, str(work_dir), cfg_options=cfg_options, **options)
    try:
        runner.train()
    finally:
        release(runner)
    return runner
