"""Check that weights are finite and consistent, so that a network can work with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

# Other buffers may be infinite, such as the mask of an attention.
_FINITE = ("weight", "bias", "running_mean", "running_var")


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
        raise ValueError(
            f"{path} has a {type(state_dict).__name__} where its weights should be; expected a "
            "state dict, which maps names to tensors: fetch the file again"
        )
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
