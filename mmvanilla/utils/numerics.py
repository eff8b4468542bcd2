"""Measure how far two results are apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


def relative_difference(expected: Any, found: Any) -> float:
    """Return max|found − expected| / max|expected| of two tensors or arrays; NaN if one has a NaN.

    Raises:
        ValueError: The shapes differ.
    """
    expected, found = torch.as_tensor(expected), torch.as_tensor(found)
    if expected.shape != found.shape:
        raise ValueError(f"expected shape {tuple(expected.shape)}, found {tuple(found.shape)}")
    if expected.numel() == 0:
        return 0.0
    scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float((found - expected).abs().max() / scale)


def largest(differences: Iterable[float]) -> float:
    """Return the largest of several numbers; NaN if one of them is, which max() may ignore."""
    return float(torch.tensor(list(differences), dtype=torch.float64).max())
