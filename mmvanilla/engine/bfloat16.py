"""Train in bfloat16 on CPUs that compute in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Runs forward passes under ``torch.autocast`` in bfloat16, on CPUs and GPUs.

    Weights, gradients and the optimiser's state stay in float32, and nothing is scaled: bfloat16
    has the range of float32. MMEngine's ``AmpOptimWrapper`` refuses CPUs. Where the device has no
    instructions for bfloat16, a training step would take many times as long; the model trains in
    float32 there, and the log says so.

    The compiled operators of ``mmcv.ops`` do not take bfloat16 on CPUs, so it is for classifiers
    and segmenters.

    Args:
        **kwargs: As for MMEngine's ``OptimWrapper``.

    Examples:
        >>> optim_wrapper = dict(type="BFloat16OptimWrapper", optimizer=dict(type="AdamW"))
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._checked: set[str] = set()

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enter autocast, and do not synchronise gradients that are still accumulated."""
        device = next(model.parameters()).device.type
        enabled = computes_in_bfloat16(device)
        if device not in self._checked:
            self._checked.add(device)
            if not enabled:
                print_log(
                    f"this {device} has no instructions for bfloat16, or this version of torch "
                    "does not know them: the model trains in float32",
                    logger="current",
                )
        with super().optim_context(model), torch.autocast(device, torch.bfloat16, enabled=enabled):
            yield


def computes_in_bfloat16(device: str) -> bool:
    """Whether a device, such as ``'cpu'``, has instructions for bfloat16, and torch knows it."""
    if device == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not before torch 2.4
        return any(getattr(torch.cpu, check, bool)() for check in checks)
    # From compute capability 8.0 on; torch says yes for older ones, too, which emulate it.
    return device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)
