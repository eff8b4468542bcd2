"""Train in bfloat16 on CPUs, and scale learning rates by the square root of the batch size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, RUNNERS
from mmengine.runner import Runner
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Runs forward passes under ``torch.autocast`` in bfloat16, on CPUs and GPUs.

    Weights, gradients and the optimiser's state stay in float32. Where the device has no
    instructions for bfloat16, the model trains in float32, and a warning says so. The compiled
    operators of ``mmcv.ops`` do not take bfloat16 on CPUs, so it is for classifiers and segmenters.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enter autocast, and do not synchronise gradients that are still accumulated."""
        device = next(model.parameters()).device.type
        enabled = computes_in_bfloat16(device)
        if not enabled:  # Python shows a warning once
            warnings.warn(f"no bfloat16 on this {device}: it trains in float32", stacklevel=1)
        with super().optim_context(model), torch.autocast(device, torch.bfloat16, enabled=enabled):
            yield


def computes_in_bfloat16(device: str) -> bool:
    """Whether a device, such as ``'cpu'``, has instructions for bfloat16, and torch knows it."""
    if device == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not before torch 2.4
        return any(getattr(torch.cpu, check, bool)() for check in checks)
    # From compute capability 8.0 on; torch says yes for older ones, too, which emulate it.
    return device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)


@RUNNERS.register_module()
class SqrtLRRunner(Runner):
    """A Runner whose ``--auto-scale-lr`` scales with sqrt(batch / base batch), not their ratio.

    Set ``runner_type='SqrtLRRunner'`` and ``auto_scale_lr=dict(base_batch_size=...)`` in a config.
    """

    def scale_lr(
        self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None
    ) -> None:
        """Scale the learning rates if ``auto_scale_lr`` enables it."""
        if not (auto_scale_lr or {}).get("enable"):
            return
        assert auto_scale_lr is not None
        loader = self._train_dataloader
        per_process = loader["batch_size"] if isinstance(loader, dict) else loader.batch_size
        batch_size, base = per_process * self.world_size, auto_scale_lr["base_batch_size"]
        # mmengine multiplies by batch / base; with this base the factor is the square root of that.
        root = math.sqrt(batch_size * base)
        super().scale_lr(optim_wrapper, dict(auto_scale_lr, base_batch_size=root))
        self.logger.info(f"that is sqrt({batch_size} / {base:g}), as runner_type asks for")
