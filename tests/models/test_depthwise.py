"""The depthwise convolution with a backward pass of its own gives the gradients of nn.Conv2d."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmvanilla import VanillaNet
from mmvanilla.models import depthwise
from mmvanilla.models.depthwise import DepthwiseConv2d
from tests.helpers import relative_difference

CHANNELS = 6


def make(kernel_size: int = 7, **changes) -> DepthwiseConv2d:
    options = dict(padding=kernel_size // 2, groups=CHANNELS, bias=False)
    return DepthwiseConv2d(CHANNELS, CHANNELS, kernel_size, **{**options, **changes})


def images(size=(14, 14), dtype=torch.bfloat16) -> torch.Tensor:
    return torch.randn(5, CHANNELS, *size).to(dtype)


def gradients(conv, x, grad):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(conv(x), [x, conv.weight], grad)


@pytest.fixture
def calls(monkeypatch):
    seen = []
    convolve = depthwise._convolve
    monkeypatch.setattr(depthwise, "_convolve", lambda x, w: seen.append(x.shape) or convolve(x, w))
    return seen


@pytest.mark.parametrize("kernel_size", [5, 7, 9])
@pytest.mark.parametrize("size", [(14, 14), (7, 5), (3, 3), (2, 9), (1, 1)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_a_convolution(calls, kernel_size, size, memory_format):
    conv = make(kernel_size)
    x = images(size).contiguous(memory_format=memory_format)
    grad = images(size).contiguous(memory_format=memory_format)
    found = gradients(conv, x, grad)
    assert len(calls) == 2 and found[1].dtype == torch.float32
    plain = nn.Conv2d(
        CHANNELS, CHANNELS, kernel_size, padding=kernel_size // 2, groups=CHANNELS, bias=False
    )
    # In float32, with the weight that bfloat16 rounded.
    plain.weight.data = conv.weight.data.bfloat16().float()
    for ours, theirs in zip(found, gradients(plain, x.float(), grad.float()), strict=True):
        assert relative_difference(ours.float(), theirs) < 1e-2


def test_in_float64_they_are_exact_and_second_derivatives_exist():
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(depthwise._Depthwise.apply, (x, weight))
    assert torch.autograd.gradgradcheck(depthwise._Depthwise.apply, (x, weight))


@pytest.mark.parametrize(
    ("conv", "x"),
    [
        (make(), images(dtype=torch.float32)),
        (make(), images((15, 14))),
        (make(3), images()),
        (make(padding=0), images()),
        (make(stride=2), images()),
        (make(padding_mode="reflect"), images()),
        (make(bias=True), images()),
        (make().eval(), images()),
    ],
)
def test_everything_else_is_a_convolution(calls, conv, x):
    with torch.autocast("cpu", torch.bfloat16):
        conv(x).float().sum().backward()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        make()(images())
    assert not calls


def test_a_network_uses_it_under_autocast_and_fuses_to_plain_convolutions(calls):
    arch = dict(dims=(4, 8), strides=(2,), stem_stride=2, stem_padding=1)
    model = VanillaNet(arch, in_channels=1).train()
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, DepthwiseConv2d):
            module._is_slow = lambda x: False
    x, found = torch.randn(16, 1, 28, 28), []
    for each in (model, twin):
        with torch.autocast("cpu", torch.bfloat16):
            each(x)[-1].float().square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in each.parameters() if p.grad is not None]))
    assert len(calls) == 4
    assert relative_difference(*found) < 2e-2
    model.eval().switch_to_deploy()
    assert not any(isinstance(module, DepthwiseConv2d) for module in model.modules())
