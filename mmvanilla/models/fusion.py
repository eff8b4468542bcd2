"""Fusing what was trained apart: algebra on tensors, then on layers, then on whole models.

Everything here is exact in eval mode; nothing here knows VanillaNet. Each floor uses only the one
below it: tensors (:func:`fuse_conv_bn`, :func:`merge_pointwise`), modules
(:func:`read_conv_norm`), and models (:func:`fuse_model`).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import Counter
from itertools import zip_longest
from typing import Any, NamedTuple, TypeGuard

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
        eps: What the norm adds to the variance.

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
    return _plain(fused_weight, weight.dtype), _plain(shift, weight.dtype)


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
        groups: Of both convolutions.

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
    return _plain(weight, weight1.dtype), _plain(bias, weight1.dtype)


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # contiguous() leaves a 1x1 weight as it is whatever its strides, so copy outright.
    return tensor.to(dtype).clone(memory_format=torch.contiguous_format)


def conv_geometry(conv: nn.Conv2d) -> dict[str, Any]:
    """What ``nn.Conv2d`` takes beside channels and bias."""
    names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return {name: getattr(conv, name) for name in names}


def require_running_stats(norm: nn.Module) -> None:
    """Refuse a norm that no convolution can take over.

    Raises:
        TypeError: The norm keeps no running statistics (GroupNorm, LayerNorm, …).
    """
    if getattr(norm, "running_mean", None) is None or getattr(norm, "running_var", None) is None:
        raise TypeError(
            f"cannot fuse a {type(norm).__name__} without running statistics into a convolution; "
            "train with norm_cfg=dict(type='BN') or dict(type='SyncBN')"
        )


def read_conv_norm(conv: nn.Conv2d, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """The one convolution that ``conv`` and the batch norm behind it amount to in eval mode.

    Args:
        conv: A convolution with ``weight`` and ``bias``.
        norm: A batch norm (SyncBN too) over its output channels, or None for none.

    Returns:
        Weight and bias, detached from the graph, with plain strides.

    Raises:
        TypeError: The norm keeps no running statistics.
    """
    weight = conv.weight.detach()
    bias = None if conv.bias is None else conv.bias.detach()
    if norm is None:
        zeros = weight.new_zeros(weight.shape[0])
        return _plain(weight, weight.dtype), _plain(zeros if bias is None else bias, weight.dtype)
    require_running_stats(norm)
    statistics: Any = norm
    gamma = None if statistics.weight is None else statistics.weight.detach()
    beta = None if statistics.bias is None else statistics.bias.detach()
    return fuse_conv_bn(
        weight, bias, statistics.running_mean, statistics.running_var, gamma, beta, statistics.eps
    )


class FusableLayer(BaseModule, ABC):
    """A layer of the training form that one convolution replaces for inference."""

    @property
    def brings_no_bias(self) -> bool:
        """Whether the plain network has no bias here, but a norm behind: fusing moves it there."""
        return False

    @property
    @abstractmethod
    def geometry(self) -> nn.Conv2d:
        """A convolution with the stride, padding, dilation and groups of the fused one."""

    @abstractmethod
    def fused_tensors(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that equals this layer in eval mode."""

    def check_fusable(self) -> None:
        """Refuse the states in which fusing would change the results.

        Raises:
            RuntimeError: Training mode, or whatever a subclass refuses.
            TypeError: A norm has no running statistics.
        """
        if self.training:
            raise RuntimeError(
                f"cannot fuse a {type(self).__name__} in training mode: batch norm would still "
                "use the batch's statistics; call model.eval() first"
            )
        for child in self.children():
            if isinstance(child, FusableLayer):
                child.check_fusable()

    def fuse(self) -> nn.Conv2d:
        """The one convolution, with a bias, that equals this layer; the layer stays as it is.

        Raises:
            RuntimeError: Training mode, or λ ≠ 1.
            TypeError: A norm has no running statistics.
        """
        self.check_fusable()
        weight, bias = self.fused_tensors()
        like = self.geometry
        with torch.device("meta"):
            conv = nn.Conv2d(like.in_channels, weight.shape[0], **conv_geometry(like))
        conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
        return conv.eval()


class FuseResult(NamedTuple):
    """What :func:`fuse_model` returns.

    Attributes:
        model: The fused model.
        num_fused: How many layers were replaced; 0 if nothing was left to fuse.
    """

    model: nn.Module
    num_fused: int


def fuse_model(model: nn.Module, inplace: bool = False) -> FuseResult:
    """Replace every :class:`FusableLayer` inside a model by the plain module that equals it.

    Any model does: a bare backbone, or a detector, segmenter or classifier around it. All layers
    are checked before the first one is replaced, so a refusal leaves the model whole.

    Args:
        model: In eval mode.
        inplace: Change ``model`` itself. Default: a copy of it.

    Raises:
        RuntimeError: The model is in training mode, or its λ is not 1.
        TypeError: A norm has no running statistics.
        ValueError: ``model`` is itself a layer to be replaced: call its ``fuse()``.
    """
    if isinstance(model, FusableLayer):
        raise ValueError(f"{type(model).__name__} is one layer: call its fuse()")
    for module in model.modules():
        if isinstance(module, FusableLayer):
            module.check_fusable()
    if not inplace:
        model = copy.deepcopy(model)
    return FuseResult(model, _replace_fusable(model))


class _Site(NamedTuple):
    parent: nn.Module
    name: str
    follower: nn.Module | None  # the module behind the layer, if it is clear that it is fed by it


def _replace_fusable(model: nn.Module) -> int:
    # Over _modules, not named_children(): a layer that several heads share has several names, and
    # must still be shared afterwards.
    sites = _find_sites(model)
    uses = Counter(child for parent in model.modules() for child in parent._modules.values())
    for layer, its_sites in sites.items():
        conv = layer.fuse()
        followers = {site.follower for site in its_sites}
        norms = [norm for norm in followers if _could_follow(norm, conv)]
        # A norm that others feed as well cannot take over the bias of one of them.
        is_fed_by_it_alone = sum(uses[norm] for norm in norms) == len(its_sites)
        if layer.brings_no_bias and len(norms) == len(followers) and is_fed_by_it_alone:
            assert conv.bias is not None
            for norm in norms:
                assert norm.running_mean is not None
                # norm(x + b) is norm(x) with its mean moved by -b.
                mean = norm.running_mean.double() - conv.bias.detach().double()
                norm.running_mean = _plain(mean, norm.running_mean.dtype)
            conv.bias = None
        for site in its_sites:
            site.parent._modules[site.name] = conv
    return len(sites)


def _find_sites(model: nn.Module) -> dict[FusableLayer, list[_Site]]:
    sites: dict[FusableLayer, list[_Site]] = {}
    for parent in model.modules():
        if isinstance(parent, FusableLayer):
            continue  # what is inside is replaced with it
        children = [(name, child) for name, child in parent._modules.items() if child is not None]
        before: nn.Module | None = None
        for (name, child), after in zip_longest(children, [child for _, child in children[1:]]):
            if isinstance(child, FusableLayer):
                # By their order, as mmcv's fuse_conv_bn pairs them; but two convolutions in a row
                # leave open for which of them the norm is.
                follower = None if isinstance(before, nn.Conv2d | FusableLayer) else after
                sites.setdefault(child, []).append(_Site(parent, name, follower))
            before = child
    return sites


def _could_follow(norm: nn.Module | None, conv: nn.Conv2d) -> TypeGuard[_BatchNorm]:
    return (
        isinstance(norm, _BatchNorm)
        and norm.running_mean is not None
        and norm.num_features == conv.out_channels
    )
