"""A depthwise convolution that trains faster in bfloat16 on CPUs, where its maps are small."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmvanilla.models.compiling import is_compiling

# Of a map, in pixels. The matrix product below grows with the square of it.
_MOST_PIXELS = 14 * 14


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution of the same size, whose backward pass is a matrix product at times.

    oneDNN takes 20 to 60 times as long for the gradient of a depthwise weight in bfloat16 as for
    the forward pass. On maps of up to 14×14 pixels, one matrix product for each channel is several
    times as fast. It is used for bfloat16 on CPUs while a model trains; everything else is an
    ``nn.Conv2d``. The arguments are those of ``nn.Conv2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        if self.training and self._is_slow(x):
            return _Depthwise.apply(x, self.weight.to(x.dtype))
        return super().forward(x)

    def _is_slow(self, x: Tensor) -> bool:
        height, width = self.kernel_size
        return (
            x.dtype == torch.bfloat16
            and x.device.type == "cpu"
            and x.dim() == 4
            and x.shape[2] * x.shape[3] <= _MOST_PIXELS
            and height == width > 3
            and self.padding == (height // 2, width // 2)
            and self.stride == self.dilation == (1, 1)
            and self.groups == self.in_channels == self.out_channels
            and self.padding_mode == "zeros"
            and self.bias is None
            and torch.is_grad_enabled()
            and not is_compiling()
        )


class _Depthwise(torch.autograd.Function):
    """y[c, a, b] = Σ w[c, u, v] x[c, a + u − n, b + v − n], for a kernel of 2n + 1 pixels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        (grad,) = gradients
        return _convolve(grad, weight.flip(2, 3)), _weight_gradient(x, grad, weight.shape[-1])


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))


def _weight_gradient(x: Tensor, grad: Tensor, kernel_size: int) -> Tensor:
    """Sum x[i, j] grad[a, b] over the images and all pairs of pixels of the same distance."""
    images, channels, height, width = x.shape
    inputs = x.permute(1, 2, 3, 0).reshape(channels, height * width, images)
    outputs = grad.permute(1, 0, 2, 3).reshape(channels, images, height * width)
    products = torch.bmm(inputs, outputs)
    products = products.to(torch.promote_types(products.dtype, torch.float32))
    products = products.reshape(channels, height, width, height, width)
    rows = _sum_diagonals(products, 1, 3, kernel_size)  # (K, C, W, W)
    columns = _sum_diagonals(rows, 2, 3, kernel_size)  # (K, K, C)
    return columns.permute(2, 1, 0).unsqueeze(1).to(x.dtype)


def _sum_diagonals(products: Tensor, dim1: int, dim2: int, kernel_size: int) -> Tensor:
    """Sum the entries i − a = u − n of two dimensions, for each u, which becomes the first one."""
    reach = kernel_size // 2
    sums = [
        products.diagonal(reach - u, dim1, dim2).sum(-1)
        if abs(reach - u) < products.shape[dim1]
        else products.new_zeros(())
        for u in range(kernel_size)
    ]
    return torch.stack(torch.broadcast_tensors(*sums))
