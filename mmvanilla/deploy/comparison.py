"""How far two forms of a model are apart, at every output that a user of it sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.apis.model import TensorModel
from mmvanilla.models.strict_loading import StrictLoadingMixin


@torch.no_grad()
def largest_difference(model: nn.Module, other: nn.Module, size: tuple[int, int]) -> float:
    """Run both on the same two random images; compare every output.

    Compared are every level of each VanillaNet inside, its head, and what
    :class:`~mmvanilla.apis.model.TensorModel` gives: logits, or a neck's levels.

    Args:
        model: In eval mode.
        other: The same model in another form, in eval mode.
        size: Height and width in pixels.

    Returns:
        The largest difference of any output, relative to that output's largest value; NaN if
        either gave one.
    """
    inputs = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    differences = []
    for expected, found in zip(_outputs(model, inputs), _outputs(other, inputs), strict=True):
        scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
        differences.append((found - expected).abs().max() / scale)
    # torch's max hands a NaN on; Python's may lose it.
    return float(torch.stack(differences).max())


def _outputs(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    collected: list[Tensor] = []

    def collect(_module: nn.Module, _args: Any, output: Any) -> None:
        collected.extend(_tensors(output))

    handles = [
        module.register_forward_hook(collect)
        for module in model.modules()
        if isinstance(module, StrictLoadingMixin)
    ]
    try:
        collected.extend(_tensors(TensorModel(model)(inputs)))
    finally:
        for handle in handles:
            handle.remove()
    return collected


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for item in output:
            yield from _tensors(item)
