"""Merge the pairs of deep training while a model trains on, as one with ``deep_training=False``."""

from __future__ import annotations

import copy
from collections.abc import Container
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.fusion import build_measured, find_layers, replace_layer
from mmvanilla.models.fusion_algebra import merge_pointwise


def merge_pairs(model: nn.Module, scales: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Replace each pair of a model by a single convolution and the pair's last norm, in place.

    Eval mode stays exact: each layer is measured, as in fusing. A pair without a last norm becomes
    the plain convolution of its deploy form. Before a norm, the size of a weight matters only to
    the optimiser: each channel of the merged one gets the root mean square that it had in the
    second convolution, which was kept in front of the same norm; the statistics go along. The
    parameters are those of the second convolution, in another shape.

    It returns the factors of the channels of each merged weight, (C_out,), by the name of the pair;
    an average of the model takes them as ``scales``.

    Raises:
        RuntimeError, TypeError: As :func:`mmvanilla.fuse_model`, but a model in training mode is
            merged, too.
    """
    scales = {} if scales is None else scales
    for pair, paths in find_layers(model, ConvPair).items():
        build = partial(_merge, scales=scales, path=paths[0])
        merged = build_measured(copy.deepcopy(pair).eval(), paths[0], build)
        layer = _single_form(pair)
        layer.load_state_dict(merged.state_dict())
        replace_layer(model, paths, layer)
    return scales


def adopt_single_form(model: nn.Module, keys: Container[str]) -> bool:
    """Replace the pairs for which a state dict has a single convolution, if there are any."""
    merged = [
        (pair, paths)
        for pair, paths in find_layers(model, ConvPair).items()
        if paths[0] + (".weight" if pair.second.norm is None else ".conv.weight") in keys
    ]
    for pair, paths in merged:
        replace_layer(model, paths, _single_form(pair))
    return bool(merged)


def _merge(pair: ConvPair, scales: dict[str, Tensor], path: str) -> nn.Module:
    """Build the single form of a copy in float64, which is used up."""
    first, second = pair.first.fused_tensors(), pair.second.conv
    norm: Any = pair.second.norm
    weight, bias = merge_pointwise(*first, second.weight, second.bias, pair.groups)
    if getattr(norm, "weight", None) is not None:
        sizes = [each.flatten(1).square().mean(1).sqrt() for each in (second.weight, weight)]
        scale = torch.where(sizes[0] * sizes[1] > 0, sizes[0] / sizes[1], 1.0)
        scale = scales.setdefault(path, scale).to(weight)  # an average may be on the CPU
        weight, bias = weight * scale[:, None, None, None], bias * scale
        deviation = (norm.running_var + norm.eps).sqrt()
        norm.running_mean.mul_(scale)
        norm.running_var.mul_(scale.square())
        # eps does not grow along: of a channel that hardly varies, that would show.
        norm.weight.mul_((norm.running_var + norm.eps).sqrt() / (scale * deviation))
    layer = _single_form(pair)
    conv: Any = getattr(layer, "conv", layer)
    conv.weight.copy_(weight)
    conv.bias.copy_(bias)
    return layer


def _single_form(pair: ConvPair) -> nn.Module:
    """Make of a pair, which is used up, its second part with the geometry of the first; zeros."""
    second, conv = pair.second.conv, pair.first.conv
    bias: Any = conv.bias if second.bias is None else second.bias
    for kept, shape in ((second.weight, conv.weight.shape[1:]), (bias, ())):
        kept.grad = None
        kept.data = kept.data.new_zeros(second.out_channels, *shape)
    conv.weight, conv.bias, conv.out_channels = second.weight, bias, second.out_channels
    pair.second.conv = conv
    return conv if pair.second.norm is None else pair.second
