"""What the tests of the stand-in share."""

import importlib

import pytest
import torch
from torch import Tensor

import mmvanilla.ops

MODULES = [
    importlib.import_module(f"mmcv.ops.{name}")
    for name in (
        "deform_conv",
        "focal_loss",
        "modulated_deform_conv",
        "multi_scale_deform_attn",
        "nms",
        "roi_align",
    )
]
COMPILED = MODULES[0].ext_module
needs_compiled = pytest.mark.skipif(
    str(COMPILED.__file__).endswith(".py"),
    reason="compares with MMCV's compiled operators (make env OPS=compiled)",
)


def use(operators) -> None:
    """Let MMCV's functions call these operators."""
    for module in MODULES:
        module.ext_module = operators


@pytest.fixture
def ours():
    """Let MMCV's functions call the stand-in, also where MMCV is compiled."""
    use(mmvanilla.ops)
    yield
    use(COMPILED)


def with_both(compute):
    """Return the results of a computation with compiled operators, and with the stand-in."""
    theirs = compute()
    use(mmvanilla.ops)
    try:
        return theirs, compute()
    finally:
        use(COMPILED)


def random_boxes(number: int, size: float = 100.0, dtype: torch.dtype = torch.float32) -> Tensor:
    corners = torch.rand(number, 2, 2, dtype=dtype) * size
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    return torch.cat([low, high + 1], dim=1)


def random_rois(number: int, images: int, dtype: torch.dtype = torch.float32) -> Tensor:
    index = torch.randint(images, (number, 1)).to(dtype)
    return torch.cat([index, random_boxes(number, 60, dtype) - 3], dim=1)


def outputs_and_gradients(function, *inputs: Tensor) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    output = function(*leaves)
    weights = torch.linspace(0.5, 1.5, output.numel()).view_as(output).to(output)
    return [output.detach(), *torch.autograd.grad(output, leaves, weights)]
