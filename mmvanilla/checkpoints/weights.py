"""Check that weights are finite and consistent, so that a network can work with them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import torch

# Other buffers may be infinite, such as the mask of an attention.
_FINITE = ("weight", "bias", "running_mean", "running_var")
_CHECKED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_weights(state_dict: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Refuse weights with which the outputs of a network would be meaningless.

    Args:
        state_dict: Tensors by name; other values than floating-point tensors are not checked.
        path: File that the weights come from, for messages.

    Raises:
        ValueError: ``state_dict`` is not a mapping, a tensor has a NaN, a weight or statistic is
            infinite, or a variance is negative.
    """
    if not isinstance(state_dict, Mapping):
        raise ValueError(f"{path} has a {type(state_dict).__name__} where its weights should be")
    for key, value in state_dict.items():
        if not isinstance(value, torch.Tensor) or value.is_meta or not value.numel():
            continue
        if value.dtype not in _CHECKED:
            continue
        # Without a copy, which a tensor of stride 0 could make large.
        low, high = float(value.detach().amin()), float(value.detach().amax())
        name = str(key)
        if (
            math.isnan(low)
            or (name.endswith(_FINITE) and math.isinf(max(-low, high)))
            or (name.endswith("running_var") and low < 0)
        ):
            raise ValueError(
                f"{path}: {name} has values from {low:g} to {high:g}; the training diverged or the "
                "file was changed, so take an earlier checkpoint or fetch the file again"
            )
