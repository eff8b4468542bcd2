"""The algebra of fusing, tensors in and tensors out; all of it is computed in float64."""

from __future__ import annotations

import torch
from torch import Tensor


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

    Computed in float64 whatever comes in, returned in ``weight``'s dtype with plain (contiguous)
    strides. The inputs are not changed. σ = sqrt(var + eps).

    Args:
        weight: (C_out, C_in / groups, kh, kw).
        bias: (C_out,), or None for none.
        mean: The norm's running mean, (C_out,).
        var: The norm's running variance, (C_out,).
        gamma: The norm's weight, (C_out,), or None for ones.
        beta: The norm's bias, (C_out,), or None for zeros.
        eps: Number that the norm adds to the variance.

    Returns:
        The fused weight, shape as ``weight``, and the fused bias, (C_out,).

    Raises:
        ValueError: A vector's length is not C_out.
    """
    channels = weight.shape[0]
    for name, vector in dict(bias=bias, mean=mean, var=var, gamma=gamma, beta=beta).items():
        if vector is not None and tuple(vector.shape) != (channels,):
            raise ValueError(
                f"fuse_conv_bn: {name} has shape {tuple(vector.shape)}, expected ({channels},) "
                f"for a weight of shape {tuple(weight.shape)}"
            )
    scale = (var.double() + eps).rsqrt()
    if gamma is not None:
        scale = scale * gamma.double()
    shift = -mean.double() if bias is None else bias.double() - mean.double()
    shift = shift * scale
    if beta is not None:
        shift = shift + beta.double()
    fused_weight = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
    return contiguous_copy(fused_weight, weight.dtype), contiguous_copy(shift, weight.dtype)


def merge_pointwise(
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    groups: int = 1,
) -> tuple[Tensor, Tensor]:
    """Multiply a convolution and the 1x1 convolution after it: W = W2·W1, b = W2·b1 + b2.

    Exact for any kernel size of the first one, its padding included, since the 1x1 adds nothing
    around the borders. Computed in float64, returned in ``weight1``'s dtype with plain strides:
    a transposed product would come out channels_last and run slower without saying so.

    Args:
        weight1: (C_mid, C_in / groups, kh, kw).
        bias1: (C_mid,), or None.
        weight2: (C_out, C_mid / groups, 1, 1).
        bias2: (C_out,), or None.
        groups: Number of groups of both convolutions.

    Returns:
        The merged weight, (C_out, C_in / groups, kh, kw), and bias, (C_out,).

    Raises:
        ValueError: The shapes do not follow each other.
    """
    mid, out = weight1.shape[0], weight2.shape[0]
    if tuple(weight2.shape[2:]) != (1,) * (weight2.dim() - 2):
        raise ValueError(
            f"merge_pointwise: the second kernel must be 1x1, found {tuple(weight2.shape)}"
        )
    if mid % groups or out % groups or weight2.shape[1] * groups != mid:
        raise ValueError(
            f"merge_pointwise: {tuple(weight2.shape)} does not follow {tuple(weight1.shape)} "
            f"with groups={groups}"
        )
    second = weight2.double().reshape(groups, out // groups, mid // groups)
    first = weight1.double().reshape(groups, mid // groups, -1)
    weight = torch.bmm(second, first).reshape(out, *weight1.shape[1:])
    bias = weight.new_zeros(out) if bias2 is None else bias2.double()
    if bias1 is not None:
        bias = bias + torch.bmm(second, bias1.double().reshape(groups, -1, 1)).reshape(out)
    return contiguous_copy(weight, weight1.dtype), contiguous_copy(bias, weight1.dtype)


def contiguous_copy(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of a tensor with the strides of a fresh one, in another type if asked."""
    # contiguous() leaves a 1x1 weight as it is whatever its strides, so copy outright.
    return tensor.to(dtype).clone(memory_format=torch.contiguous_format)
