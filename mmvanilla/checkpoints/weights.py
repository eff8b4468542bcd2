"""Whether weights can be those of a network that works."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

# Buffers of other kinds may be infinite, as the mask of an attention.
_FINITE = ("weight", "bias", "running_mean", "running_var")


def check_weights(state_dict: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Refuse weights that make every output meaningless.

    Args:
        state_dict: Names to tensors; anything that is no floating-point tensor is passed over.
        path: The file that they are from, for the message.

    Raises:
        ValueError: A tensor has a NaN, a weight or a statistic is infinite, or a variance is
            negative.
    """
    for key, value in state_dict.items():
        if not isinstance(value, torch.Tensor) or value.is_meta or not value.is_floating_point():
            continue
        name = str(key)
        problem = None
        if torch.isnan(value).any():
            problem = f"{int(torch.isnan(value).sum())} of its {value.numel()} values are NaN"
        elif name.endswith(_FINITE) and torch.isinf(value).any():
            problem = f"{int(torch.isinf(value).sum())} of its {value.numel()} values are infinite"
        elif name.endswith("running_var") and (value < 0).any():
            problem = f"a variance of {value.min().item():.3g} is negative"
        if problem is not None:
            raise ValueError(
                f"{path}: {name} cannot be used: {problem}; the training diverged or the file was "
                "changed, so take an earlier checkpoint or fetch the file again"
            )
