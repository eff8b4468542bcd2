"""Balance the weights of a fused VanillaNet over its whole depth, without changing its function.

With one scale for a whole layer, int8 has few steps left for a channel whose weights are small.
Between VanillaNet's convolutions there are only pooling and activations like ReLU, which commute
with a positive factor for each channel. So a channel may be multiplied in one layer and divided in
the next one (cross-layer equalisation, Nagel et al., ICCV 2019).
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.models.block import SeriesActivation, VanillaBlock
from mmvanilla.models.vanillanet import VanillaNet

# The parts of a layer, of which act(s·x) = s·act(x) for every s > 0, for each channel by itself.
_KNOWN = {VanillaBlock, SeriesActivation, nn.Conv2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d}
_KNOWN |= {nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity}
_SWEEPS = 20
_BALANCED = 0.02  # finer balance would not show in int8
_TOLERANCE = 1e-10


def equalise(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Return a model whose VanillaNets have balanced weights, and give the same outputs.

    For each channel between two convolutions, the largest absolute weight or bias before it and the
    largest weight behind it become equal, and the bias of a depthwise convolution moves into the
    1×1 convolution behind it. The maps that leave a backbone at ``out_indices`` keep their values;
    a :class:`~mmvanilla.models.cls_head.VanillaNetClsHead` is balanced with its backbone. The
    result is measured in float64 on random images before it is returned.

    Args:
        model: A fused VanillaNet, or a detector, segmenter or classifier with one inside.
        inplace: Whether to change ``model`` itself, which is then returned, instead of a copy.
            Default: False.

    Returns:
        The balanced model. Nothing but weights and biases differs.

    Raises:
        ValueError: There is no VanillaNet inside, it is not fused, or a layer has a part that
            is not known to commute with a factor.
        RuntimeError: The outputs differ by more than 1e-10 of their maximum.
    """
    exact: Any = copy.deepcopy(model).double().eval()
    nets = [part for part in exact.modules() if isinstance(part, VanillaNet)]
    if not nets:
        raise ValueError(f"there is no VanillaNet in this {type(model).__name__} to equalise")
    result = model if inplace else copy.deepcopy(model)
    with torch.no_grad():
        for net in nets:
            links, before = _links(exact, net), _outputs(exact, net)
            _balance(links)
            for expected, found in zip(before, _outputs(exact, net), strict=True):
                difference = float((found - expected).abs().max() / expected.abs().max())
                if not difference <= _TOLERANCE:  # written with `not` so that NaN fails
                    raise RuntimeError(
                        f"equalising changed the outputs by {difference:.2g} of their maximum; the "
                        "weights may hold NaN, or this subclass has a forward of its own"
                    )
        for own, balanced in zip(result.parameters(), exact.parameters(), strict=True):
            own.copy_(balanced)
    return result


def _links(model: nn.Module, net: VanillaNet) -> list[tuple[nn.Conv2d, nn.Conv2d]]:
    """List pairs of convolutions of which the second one alone takes what the first one gives."""
    if not net.deploy:
        raise ValueError("only a fused VanillaNet can be equalised; call fuse_model(model) first")
    leaving = {net.arch.levels[level] for level in net.out_indices}
    chains: list[list[nn.Conv2d]] = [[]]
    for layer, block in enumerate((net.stem, *net.blocks)):
        if unknown := {type(part).__name__ for part in block.modules() if type(part) not in _KNOWN}:
            raise ValueError(
                f"cannot equalise a layer with {', '.join(sorted(unknown))}: only VanillaBlocks of "
                "ReLU, LeakyReLU or PReLU are known to commute with a factor for each channel"
            )
        chains[-1] += [part for part in block.modules() if isinstance(part, nn.Conv2d)]
        if layer == max(leaving):
            break
        if layer in leaving:
            chains.append([])
    if (head := _head_of(model, net)) is not None:
        chains[-1].append(head)
    return [link for chain in chains for link in pairwise(chain)]


def _head_of(model: nn.Module, net: VanillaNet) -> nn.Conv2d | None:
    """Return the convolution of the classifier that pools the backbone's only output."""
    head: Any = getattr(model, "head", None)
    is_ours = type(head).__name__ == "VanillaNetClsHead" and getattr(model, "backbone", None) is net
    return head.conv if is_ours and getattr(model, "neck", None) is None else None


def _balance(links: list[tuple[nn.Conv2d, nn.Conv2d]]) -> None:
    for first, second in links:
        if second.groups == 1 and second.kernel_size == (1, 1) and first.groups > 1:
            second.bias += second.weight.sum(dim=(2, 3)) @ first.bias  # type: ignore[operator]
            first.bias.zero_()  # type: ignore[union-attr]
    for _ in range(_SWEEPS):
        largest = 1.0
        for first, second in links:
            # With its bias: a channel of tiny weights may be a constant, and would grow with them.
            bias: Any = first.bias
            before = torch.maximum(first.weight.abs().amax(dim=(1, 2, 3)), bias.abs())
            after = _by_input_channel(second).abs().amax(dim=(1, 2, 3))
            factor = torch.sqrt(after / before)
            factor[~(torch.isfinite(factor) & (factor > 0))] = 1.0  # a channel of zeros
            first.weight *= factor[:, None, None, None]
            bias *= factor
            _by_input_channel(second).div_(factor[:, None, None, None])
            largest = max(largest, float(factor.max()), float(1 / factor.min()))
        if largest < 1 + _BALANCED:
            return


def _by_input_channel(conv: nn.Conv2d) -> Tensor:
    """View a weight so that its first dimension counts the channels of the input."""
    return conv.weight.data if conv.groups > 1 else conv.weight.data.transpose(0, 1)


def _outputs(model: Any, net: VanillaNet) -> list[Tensor]:
    """Run the backbone, or the whole classifier, of which the head takes part, on random images."""
    shape = (2, net.stem.conv.in_channels, *(net.fixed_input_size or (64, 96)))
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    maps = net(images.to(net.stem.conv.weight))
    return list(maps) if _head_of(model, net) is None else [model.head(maps)]
