"""What several test modules need: small nets with nothing left at its initial value."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvanilla.models.archs import ARCHS, Arch
from mmvanilla.utils.numerics import relative_difference as relative_difference

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
DATA = ROOT / "tests" / "data"
CAN_EXPORT = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6)

TINY = dict(dims=(8, 8, 16, 24, 24), strides=(1, 2, 2, 2))


def tiny_arch(name: str) -> Arch:
    """A published variant with its depth, strides and pooling, 1/64 as wide."""
    return ARCHS[name].scaled(1 / 64)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and norm statistics, so that a fuse that forgot one of them shows."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
        tensor.data.copy_(low + (high - low) * values)

    for module in model.modules():
        if isinstance(module, _BatchNorm):
            uniform(module.running_mean, -0.5, 0.5)
            uniform(module.running_var, 0.5, 2.0)
            if module.affine:
                uniform(module.weight, 0.5, 1.5)
                uniform(module.bias, -0.5, 0.5)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5
            uniform(module.weight, -2 * bound, 2 * bound)
            if module.bias is not None:
                uniform(module.bias, -0.5, 0.5)
    return model


def backbone_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights below ``backbone.``, without this prefix."""
    prefix = "backbone."
    return {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}


def release(runner: Any) -> None:
    """Close the log of a Runner, and let mmengine forget its experiment, or both stay for good."""
    if getattr(runner, "_lock", None) is not None:
        runner._lock.close()
    for handler in list(runner.logger.handlers):
        if isinstance(handler, logging.FileHandler):
            handler.close()
            runner.logger.removeHandler(handler)
    for kept in (runner.logger, runner.message_hub, runner.visualizer):
        for kind in type(kept).__mro__:  # a toolbox's visualizer is kept by its parent, too
            getattr(kind, "_instance_dict", {}).pop(kept.instance_name, None)
