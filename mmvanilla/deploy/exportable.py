"""Prepare a model for the exporters.

A detector is reduced to its backbone; a classifier gives logits and a segmenter maps of logits.
Modules that can be exported for one height and width only are replaced by equal ones without that
limitation.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.apis.model import TensorModel, fixed_input_size, is_pose_estimator
from mmvanilla.models.fusion import count_fusable, fuse_model
from mmvanilla.models.vanillanet import VanillaNet

PARTS = ("backbone", "classifier", "segmenter")


@dataclass(frozen=True)
class Exportable:
    """A model that is ready for an exporter.

    Attributes:
        module: Module from images, (N, C, H, W), to one or several tensors; in eval mode, on the
            CPU, in float32.
        part: Name of the part, an entry of :data:`PARTS`.
        output_names: Names of the output tensors.
        has_maps: True if the outputs have a height and a width.
        fixed_size: The only height and width in pixels that it accepts; None if it accepts any.
    """

    module: TensorModel
    part: str
    output_names: tuple[str, ...]
    has_maps: bool
    fixed_size: tuple[int, int] | None


def make_exportable(
    model: nn.Module, part: str | None = None, softmax: bool = False, full_size: bool = False
) -> Exportable:
    """Fuse a copy of a model and take the part to export.

    Args:
        model: A detector, segmenter, classifier or bare backbone, in eval mode.
        part: Part to export, an entry of :data:`PARTS`. None: the whole classifier or segmenter, or
            the backbone of any other model.
        softmax: Whether a classifier gives probabilities instead of logits. Default: False.
        full_size: Whether a segmenter resizes its logits to the size of the input, instead of
            giving them at the size of the decode head. Default: False.

    Raises:
        ValueError: The model has no such part, or an option does not apply to it.
        RuntimeError: The model cannot be fused (training mode, λ ≠ 1).
    """
    part = resolve_part(model, part)
    if softmax and part != "classifier":
        raise ValueError(f"softmax works for classifiers, but this exports a {part}; leave it out")
    if full_size and part != "segmenter":
        raise ValueError(f"full_size works for segmenters, but this exports a {part}; leave it out")
    fused = copy.deepcopy(model).cpu().float()
    if count_fusable(fused):
        fuse_model(fused, inplace=True)
    fused.eval()
    fixed_size = fixed_input_size(fused)
    for parent in list(fused.modules()):
        _free_adaptive_pools(parent)
    if fixed_size is not None:
        _fix_adaptive_pools(fused, fixed_size)
    if part == "backbone":
        backbone = getattr(fused, "backbone", fused)
        module = TensorModel(backbone, "backbone")
        names = _level_names(backbone)
    elif part == "classifier":
        module = TensorModel(fused, "probabilities" if softmax else "logits")
        names = (module.output,)
    else:
        module = TensorModel(fused, "full_size_logits" if full_size else "logits")
        names = ("logits",)
    return Exportable(module.eval(), part, names, part != "classifier", fixed_size)


def resolve_part(model: nn.Module, part: str | None = None) -> str:
    """Return the name of the part to export; the arguments are those of :func:`make_exportable`.

    Raises:
        ValueError: The model has no such part.
    """
    found = "backbone"
    if hasattr(model, "decode_head"):
        found = "segmenter"
    elif is_pose_estimator(model):
        pass  # its head gives heatmaps or coordinates, which no part here names
    elif isinstance(getattr(model, "head", None), nn.Module) and hasattr(model, "backbone"):
        found = "classifier"
    if part is None:
        return found
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, found {part!r}")
    if part not in (found, "backbone"):
        raise ValueError(
            f"{type(model).__name__} is not a {part}; choose {found}"
            + ("" if found == "backbone" else " or backbone")
        )
    return part


def _level_names(backbone: nn.Module) -> tuple[str, ...]:
    indices = getattr(backbone, "out_indices", None)
    if indices is None:
        raise ValueError(
            f"{type(backbone).__name__} has no out_indices, so its outputs cannot be named; export "
            "the whole classifier or segmenter"
        )
    return tuple(f"level{index}" for index in indices)


class SizeFreeAvgPool(nn.Module):
    """Adaptive average pooling as two matrix products, one for each axis.

    It equals ``nn.AdaptiveAvgPool2d``, whose bins an exporter can write only for one input size.
    Here the graph itself computes the bins from the input size.

    Args:
        output_size: Height and width of the output in pixels.
    """

    def __init__(self, output_size: tuple[int, int]) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, *output_size)."""
        rows = _bins(x.shape[-2], self.output_size[0], x)
        columns = _bins(x.shape[-1], self.output_size[1], x)
        return rows @ x @ columns.transpose(0, 1)


def _bins(size: Any, count: int, like: Tensor) -> Tensor:
    """(count, size): row i averages the pixels from ⌊i·size/count⌋ to ⌈(i + 1)·size/count⌉."""
    pixels = torch.arange(size, device=like.device)
    index = torch.arange(count, device=like.device)
    start = index * size // count
    stop = ((index + 1) * size + count - 1) // count
    inside = (pixels[None] >= start[:, None]) & (pixels[None] < stop[:, None])
    inside = inside.to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True)


def _free_adaptive_pools(parent: nn.Module) -> None:
    for name, child in parent._modules.items():
        if isinstance(child, nn.AdaptiveAvgPool2d):
            size = child.output_size
            height, width = size if isinstance(size, tuple) else (size, size)
            # ONNX has global pooling for one pixel; None keeps an axis as it is.
            if height is not None and width is not None and (height, width) != (1, 1):
                parent._modules[name] = SizeFreeAvgPool((height, width))


def _fix_adaptive_pools(model: nn.Module, size: tuple[int, int]) -> None:
    """Replace adaptive max pooling by plain max pooling that equals it at the given size."""
    backbone = next(module for module in model.modules() if isinstance(module, VanillaNet))
    x = torch.zeros(1, backbone.stem.conv.in_channels, *size)
    with torch.no_grad():
        x = backbone.stem(x)
        for block in backbone.blocks:
            pool = block.pool
            if isinstance(pool, nn.AdaptiveMaxPool2d):
                assert isinstance(pool.output_size, int)
                block.pool = equal_max_pool(x.shape[-1], pool.output_size)
            x = block(x)


def equal_max_pool(size: int, output_size: int) -> nn.MaxPool2d:
    """Find the plain max pooling that equals adaptive max pooling at one input size.

    Args:
        size: Height and width of the input in pixels.
        output_size: Height and width of the output in pixels.

    Raises:
        ValueError: No kernel, stride and padding give these bins.
    """
    bins = [
        (index * size // output_size, -(-(index + 1) * size // output_size))
        for index in range(output_size)
    ]
    for stride in (size // output_size, -(-size // output_size)):
        for kernel in range(1, 2 * stride + 2):
            for padding in range(kernel // 2 + 1):
                starts = range(-padding, size + padding - kernel + 1, stride)
                if [(max(at, 0), min(at + kernel, size)) for at in starts] == bins:
                    return nn.MaxPool2d(kernel, stride, padding)
    raise ValueError(
        f"adaptive pooling from {size} to {output_size} pixels has bins with uneven steps, which "
        "max pooling in ONNX does not support; use output sizes of half the input, rounded up"
    )
