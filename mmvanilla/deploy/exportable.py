"""Prepare a model for the exporters: what is exported, and what it is compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.apis.model import TensorModel, fixed_input_size, gives_logits, input_channels
from mmvanilla.models.block import SeriesActivation, VanillaBlock
from mmvanilla.models.equalise import equalise
from mmvanilla.models.fusion import count_fusable, fuse_model
from mmvanilla.utils.numerics import relative_difference

PARTS = ("backbone", "classifier", "segmenter")
_SCORES: dict[str, nn.Module] = {"softmax": nn.Softmax(dim=1), "sigmoid": nn.Sigmoid()}


@dataclass(frozen=True)
class Exportable:
    """A model that is ready for an exporter: from images, (N, C, H, W) float32, to tensors.

    ``reference`` computes what the model did as it was given; ``fixed_size`` is the only size in
    pixels that it accepts (None: any); ``equalised`` is ``'yes'``, or why it is not.
    """

    module: nn.Module
    reference: Callable[[Tensor], Any]
    part: str
    output_names: tuple[str, ...]
    fixed_size: tuple[int, int] | None
    equalised: str


def make_exportable(
    model: nn.Module, part: str | None = None, softmax: bool = False, balance: bool = True
) -> Exportable:
    """Fuse and equalise a copy of a model on the CPU, and take the part to export.

    Args:
        model: A detector, segmenter, classifier or bare backbone, in eval mode.
        part: Part to export, an entry of :data:`PARTS`. None: the whole classifier or segmenter, or
            the backbone of any other model.
        softmax: Whether a classifier gives the scores of its own ``predict`` instead of logits:
            softmax, or sigmoid where a thing may have several labels. Default: False.
        balance: Whether to equalise the weights, where that can be done exactly. Default: True.

    Raises:
        ValueError: The model has no such part, or no such scores.
        RuntimeError: The model cannot be fused (training mode, λ ≠ 1).
    """
    part = resolve_part(model, part)
    if softmax and part != "classifier":
        raise ValueError(f"softmax works for classifiers, but this exports a {part}; leave it out")
    given = copy.deepcopy(model).cpu().float()
    fused = copy.deepcopy(given)
    if count_fusable(fused):
        fuse_model(fused, inplace=True)
    given.eval(), fused.eval()
    equalised = "yes" if balance else "no"
    try:
        if balance:
            equalise(getattr(fused, "backbone", fused) if part == "backbone" else fused, True)
    except (ValueError, RuntimeError) as error:
        equalised = f"no: {error}"
    fixed_size = fixed_input_size(fused)
    for parent in list(fused.modules()):
        _free_pools(parent)
        if type(parent) is VanillaBlock:
            _pool_behind_relu(parent)
    output = part if part == "backbone" else "logits"
    names: tuple[str, ...] = (output,)
    if part == "backbone":
        backbone: Any = getattr(fused, "backbone", fused)
        if not hasattr(backbone, "out_indices"):
            raise ValueError(f"{type(backbone).__name__} has no out_indices that name its outputs")
        names = tuple(f"level{index}" for index in backbone.out_indices)
    module: nn.Module = TensorModel(fused, output)
    reference: Callable[[Tensor], Any] = TensorModel(given, output)
    if softmax:
        if (scores_of := score_function(given)) is None:
            head = type(model.head).__name__
            raise ValueError(f"{head} predicts neither softmax nor sigmoid; leave softmax out")
        module, names = nn.Sequential(module, _SCORES[scores_of]), ("probabilities",)
        reference = predicted_scores(given)
    return Exportable(module.eval(), reference, part, names, fixed_size, equalised)


def random_images(shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw standard normal values, as of normalised images; a seed fixes them."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def resolve_part(model: nn.Module, part: str | None = None) -> str:
    """Return the part that :func:`make_exportable` exports, or raise the error that it raises."""
    found = "backbone"
    if hasattr(model, "decode_head"):
        found = "segmenter"
    elif gives_logits(model) and hasattr(model, "backbone") and hasattr(model.head, "predict"):
        found = "classifier"
    if part not in (None, found, "backbone"):
        raise ValueError(f"{type(model).__name__} is not a {part}; choose backbone or {found}")
    return part or found


def predicted_scores(model: Any) -> Callable[[Tensor], Tensor]:
    """Make a function from images to the scores, (N, K), that a classifier's ``predict`` gives."""

    @torch.no_grad()
    def predict(images: Tensor) -> Tensor:
        return torch.stack([sample.pred_score for sample in model(images, mode="predict")])

    return predict


def score_function(model: nn.Module) -> str | None:
    """Measure how a classifier predicts scores: ``'softmax'``, ``'sigmoid'``, or None of both."""
    size = fixed_input_size(model) or (64, 64)
    images = random_images((2, input_channels(model), *size), seed=0)
    head: Any = copy.deepcopy(model.head)
    with suppress(Exception), torch.no_grad():  # whatever a head raises that predicts other things
        # Its own logits may be so large that both give ones and zeros.
        logits = random_images(TensorModel(model, "logits")(images).shape, seed=0)
        head.forward = lambda features: logits
        scores = torch.stack([sample.pred_score for sample in head.predict((images,))])
        for name, function in _SCORES.items():
            if relative_difference(scores, function(logits)) < 1e-5:
                return name
    return None


def _pool_behind_relu(block: Any) -> None:
    """Let ReLU come before max pooling, with equal values, so that runtimes pool in int8."""
    owner = block.act if isinstance(block.act, SeriesActivation) else block
    if type(owner.act) is nn.ReLU and block.pool is not None:
        block.pool = nn.Sequential(nn.ReLU(), block.pool)
        owner.act = nn.Identity()


def _free_pools(parent: nn.Module) -> None:
    """Replace adaptive pooling by what exporters can write."""
    for name, child in parent.named_children():
        size: Any = getattr(child, "output_size", None)
        if isinstance(child, nn.AdaptiveMaxPool2d) and type(parent) is VanillaBlock:
            setattr(parent, name, HalvingPool(size))
        elif isinstance(child, nn.AdaptiveAvgPool2d):
            size = size if isinstance(size, tuple) else (size, size)
            # ONNX has global pooling for one pixel; None keeps an axis as it is.
            if None not in size and size != (1, 1):
                setattr(parent, name, SizeFreeAvgPool(size))


class HalvingPool(nn.Module):
    """Adaptive max pooling to half the size, rounded up, as max pooling that exporters know."""

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, H) to (N, C, output_size, output_size)."""
        size, out = int(x.shape[-1]), self.output_size
        if (size + 1) // 2 != out:
            raise ValueError(f"no file can pool adaptively from {size} to {out} pixels")
        return nn.functional.max_pool2d(x, 2 + size % 2, 2, size % 2)


class SizeFreeAvgPool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as a matrix product for each axis, of any input size."""

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
