"""Adapt weights to images with another number of channels than those of the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Keys of the stem's first convolution: in a pair, with a norm alone, and fused.
_STEM_KEYS = ("stem.conv.first.conv.weight", "stem.conv.conv.weight", "stem.conv.weight")


def adapt_kernel(weight: Tensor, in_channels: int) -> Tensor:
    """Adapt a kernel to another number of input channels.

    With fewer channels, each new one replaces several old ones, whose kernels are added: a gray
    image gives the result that it gave before when it was repeated three times. With more channels,
    the old ones are repeated, and each kernel is divided by the number of its repetitions: an image
    with repeated channels gives the same result as before. New channel j belongs to the old channel
    j modulo the smaller of the two numbers.

    Args:
        weight: The old kernel, (C_out, C_in, kh, kw).
        in_channels: The new number of input channels.

    Returns:
        The new kernel, (C_out, in_channels, kh, kw), in the type of the old one.

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
    """Find the key of the stem's first kernel in a state dict with our names.

    Args:
        state_dict: Weights of a backbone, or of a model that has it below ``backbone.``.

    Raises:
        ValueError: There is no such key.
    """
    for key in _STEM_KEYS:
        for name in (key, f"backbone.{key}"):
            if name in state_dict:
                return name
    raise ValueError(
        "these weights have no stem.conv; expected those of a VanillaNet with mmvanilla's names"
    )
