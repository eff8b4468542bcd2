"""Parameters and multiply-accumulates of any model, by torch's own counter.

mmengine's get_model_complexity_info traces the model, which the meta device does not take.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class Complexity(NamedTuple):
    """How large a model is and how much it computes.

    Attributes:
        params: Parameters of the whole model.
        macs: Multiply-accumulates of convolutions and matrix products in one forward pass of one
            image (what OpenMMLab's tables call FLOPs).
    """

    params: int
    macs: int


class ForwardTensors(nn.Module):
    """A model of any toolbox as a function from an image batch to tensors.

    Classifiers and segmenters give their logits, detectors what backbone and neck extract (their
    heads need proposals and data samples), a bare backbone its features.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    @property
    def what(self) -> str:
        """What the outputs are, in words."""
        if self._gives_logits:
            return "logits"
        neck = " and neck" if getattr(self.model, "neck", None) is not None else ""
        return f"features of the backbone{neck}"

    @property
    def _gives_logits(self) -> bool:
        heads = (getattr(self.model, name, None) for name in ("head", "decode_head"))
        return any(isinstance(head, nn.Module) for head in heads)

    def forward(self, inputs: Tensor) -> Any:
        """(N, C, H, W) in; a tensor or a nest of them out."""
        if self._gives_logits:
            return self.model(inputs, mode="tensor")
        if hasattr(self.model, "extract_feat"):
            return self.model.extract_feat(inputs)
        return self.model(inputs)


def measure_complexity(
    model: nn.Module, size: tuple[int, int] = (224, 224), in_channels: int = 3
) -> Complexity:
    """Count a model's parameters, and its MACs for one image.

    Counts what :class:`ForwardTensors` runs. Works on the meta device too.

    Args:
        model: Of any toolbox, or a bare backbone.
        size: Height and width in pixels. Default: 224×224.
        in_channels: Of the image. Default: 3.
    """
    device = next(model.parameters()).device
    inputs = torch.zeros(1, in_channels, *size, device=device)
    was_training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            ForwardTensors(model)(inputs)
    finally:
        model.train(was_training)
    # torch counts a multiplication and an addition as two.
    return Complexity(
        sum(parameter.numel() for parameter in model.parameters()),
        counter.get_total_flops() // 2,
    )
