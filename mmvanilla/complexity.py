"""Parameters and multiply-accumulates of any model, by torch's own counter.

mmengine's get_model_complexity_info traces the model, which the meta device does not take.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmvanilla.apis.model import ForwardTensors


class Complexity(NamedTuple):
    """How large a model is and how much it computes.

    Attributes:
        params: Parameters of the whole model.
        macs: Multiply-accumulates of convolutions and matrix products in one forward pass of one
            image (what OpenMMLab's tables call FLOPs).
    """

    params: int
    macs: int


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
