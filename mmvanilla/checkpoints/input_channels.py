"""Weights for images of another number of channels than they were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# The stem's first convolution: of a pair, of a single one with norm, and fused; below a prefix too.
_STEM_KEYS = ("stem.conv.first.conv.weight", "stem.conv.conv.weight", "stem.conv.weight")


def adapt_kernel(weight: Tensor, in_channels: int) -> Tensor:
    """The kernel that takes another number of channels and computes the same.

    With fewer channels than before, each stands for several old ones, whose kernels are added:
    gray images give what their three-fold repetition gave. With more, the old channels repeat, and
    each kernel is shared out among its repetitions: images whose channels repeat give what the
    channels gave once. Channel j goes with the old channel j modulo the smaller number.

    Args:
        weight: The old kernel, (C_out, C_in, kh, kw).
        in_channels: The new number of input channels.

    Returns:
        The new kernel, (C_out, in_channels, kh, kw), in the old one's type.

    Raises:
        ValueError: ``in_channels`` is below 1.
    """
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, found {in_channels}")
    old_channels = weight.shape[1]
    if in_channels == old_channels:
        return weight
    exact = weight.double()
    if in_channels < old_channels:
        parts = [exact[:, first::in_channels].sum(dim=1) for first in range(in_channels)]
    else:
        counts = [len(range(old, in_channels, old_channels)) for old in range(old_channels)]
        olds = [new % old_channels for new in range(in_channels)]
        parts = [exact[:, old] / counts[old] for old in olds]
    return torch.stack(parts, dim=1).to(weight.dtype)


def find_stem(state_dict: Mapping[str, Any]) -> str:
    """The key of the kernel that the image enters, in a state dict with our names.

    Args:
        state_dict: Weights of a backbone, or of a model that has it below ``backbone.``.

    Raises:
        ValueError: There is none.
    """
    for key in _STEM_KEYS:
        for name in (key, f"backbone.{key}"):
            if name in state_dict:
                return name
    raise ValueError("these weights have no stem.conv, which an image would enter")
