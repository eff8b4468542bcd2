"""The algebra of fusing, from tensors to tensors.

All is computed in float64 and returned in the type of the (first) weight, with contiguous strides:
without them a transposed product would be channels_last, which is slower. No input is changed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import fusion


def fuse_conv_bn(
    weight: Tensor,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Fold a batch norm into the convolution before it: W' = Wγ/σ, b' = (b − μ)γ/σ + β.

    Args:
        weight: Weight of the convolution, (C_out, C_in / groups, kh, kw).
        bias: Bias of the convolution, (C_out,); None if it has none.
        mean: The norm's running mean, (C_out,).
        var: The norm's running variance, (C_out,); σ = sqrt(var + eps).
        gamma: The norm's weight, (C_out,); None for ones.
        beta: The norm's bias, (C_out,); None for zeros.
        eps: Number that the norm adds to the variance.
    """
    bias, gamma, beta = (None if each is None else each.double() for each in (bias, gamma, beta))
    statistics = mean.double(), var.double(), eps, gamma, beta
    fused = fusion.fuse_conv_bn_weights(weight.double(), bias, *statistics)
    found, shift = (contiguous_copy(each.data, weight.dtype) for each in fused)
    return found, shift


def merge_pointwise(
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor | None,
    groups: int = 1,
) -> tuple[Tensor, Tensor]:
    """Multiply a convolution and the 1x1 convolution after it: W = W2·W1, b = W2·b1 + b2.

    This is exact for any kernel size and padding of the first convolution, since the second one has
    no padding.

    Args:
        weight1: Weight of the first convolution, (C_mid, C_in / groups, kh, kw).
        bias1: Bias of the first convolution, (C_mid,).
        weight2: Weight of the second convolution, (C_out, C_mid / groups, 1, 1).
        bias2: Bias of the second convolution, (C_out,); None if it has none.
        groups: Number of groups of both convolutions.
    """
    mid, out = weight1.shape[0], weight2.shape[0]
    second = weight2.double().reshape(groups, out // groups, mid // groups)
    first = weight1.double().reshape(groups, mid // groups, -1)
    weight = torch.bmm(second, first).reshape(out, *weight1.shape[1:])
    bias = torch.bmm(second, bias1.double().reshape(groups, -1, 1)).reshape(out)
    bias = bias if bias2 is None else bias + bias2.double()
    return contiguous_copy(weight, weight1.dtype), contiguous_copy(bias, weight1.dtype)


def contiguous_copy(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy a tensor into contiguous memory, in the given type."""
    # contiguous() does not change a 1x1 weight, whatever its strides are, so always copy.
    return tensor.to(dtype).clone(memory_format=torch.contiguous_format)
