"""Fuse layers of the training form into plain convolutions, one by one or in a whole model.

Each level uses only the one below it: tensors (:mod:`mmvanilla.models.fusion_algebra`), a
convolution and its norm (:func:`read_conv_norm`), layers (:class:`FusableLayer`), and models
(:func:`fuse_model`).

Each layer is *measured*: its own forward and the new convolution get the same random images, and a
difference is an error.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmvanilla.models.fusion_algebra import contiguous_copy, fuse_conv_bn

# The arguments of nn.Conv2d besides channels and bias.
GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")

# The images that measure a layer: nearly its bias alone, usual values, and values beyond the bounds
# of an activation inside.
_SCALES = (1e-3, 1.0, 1e3)
# The largest difference in a channel of an image, relative to its largest value: in float64
# rounding stays far below. The second number is the share of the largest channel that is zero.
_TOLERANCE, _ZERO = 1e-5, 1e-6


def conv_geometry(conv: nn.Conv2d) -> dict[str, Any]:
    """Return the values of :data:`GEOMETRY`."""
    return {name: getattr(conv, name) for name in GEOMETRY}


def require_running_stats(norm: nn.Module) -> None:
    """Raise a TypeError for a norm that keeps no running statistics (GroupNorm, LayerNorm, …)."""
    if not isinstance(norm, nn.Identity) and getattr(norm, "running_mean", None) is None:
        raise TypeError(
            f"cannot fuse a {type(norm).__name__} without running statistics into a convolution; "
            "train with norm_cfg=dict(type='BN') or dict(type='SyncBN')"
        )


def read_conv_norm(conv: nn.Conv2d, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of the one convolution that equals ``conv`` and its norm.

    Both are detached from the graph and have contiguous strides.

    Args:
        conv: A convolution.
        norm: The batch norm (or SyncBN) that takes its output. None, or the Identity that mmcv's
            ``fuse_conv_bn`` leaves behind: there is no norm.

    Raises:
        TypeError: The norm keeps no running statistics.
    """
    weight = conv.weight.detach()
    bias = None if conv.bias is None else conv.bias.detach()
    if norm is None or isinstance(norm, nn.Identity):
        bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
        return contiguous_copy(weight, weight.dtype), contiguous_copy(bias, weight.dtype)
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
    @abstractmethod
    def geometry(self) -> nn.Conv2d:
        """A convolution with the stride, padding, dilation and groups of the fused one."""

    @abstractmethod
    def fused_tensors(self) -> tuple[Tensor, Tensor]:
        """Return the weight and bias of the one convolution that equals this layer in eval mode."""

    def check_fusable(self) -> None:
        """Refuse the states that have a remedy, in words of their own.

        Raises:
            RuntimeError: Some part of the layer is in training mode, or λ is not 1.
            TypeError: A norm has no running statistics.
        """
        # mmcv's fuse_conv_bn leaves an Identity in training mode.
        if any(part.training and not isinstance(part, nn.Identity) for part in self.modules()):
            raise RuntimeError(
                f"cannot fuse a {type(self).__name__} in training mode: batch norm would still "
                "use the batch's statistics; call model.eval() first"
            )
        for child in self.children():
            if isinstance(child, FusableLayer):
                child.check_fusable()

    def fuse(self, name: str | None = None) -> nn.Conv2d:
        """Build the one convolution, with a bias, that equals this layer, which is not changed.

        Args:
            name: What errors call the layer. None: the name of its class.

        Raises:
            RuntimeError: The layer is in training mode, its λ is not 1, or it computes something
                else than the convolution.
            TypeError: A norm has no running statistics.
        """
        conv: Any = build_measured(self, name or type(self).__name__, _build_conv)
        # A frozen layer stays frozen.
        return conv.requires_grad_(any(parameter.requires_grad for parameter in self.parameters()))


def _build_conv(layer: FusableLayer) -> nn.Conv2d:
    like = layer.geometry
    weight, bias = layer.fused_tensors()
    with torch.device("meta"):
        conv = nn.Conv2d(like.in_channels, weight.shape[0], **conv_geometry(like))
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    return conv


def build_measured(layer: FusableLayer, name: str, build: Callable[[Any], nn.Module]) -> nn.Module:
    """Build what replaces a layer, in eval mode, and measure that it computes the same.

    ``build`` gets a copy in float64, so that no rounding hides a difference, and so that neither
    autocast nor the kernels of a device play a part.
    """
    try:
        layer.check_fusable()
    except (RuntimeError, TypeError) as error:
        raise type(error)(f"{name}: {error}") from error
    # Tensors that are created in inference mode could not be trained.
    with torch.inference_mode(False), torch.no_grad():
        try:
            twin = copy.deepcopy(layer).double()
            images = _random_images(twin.geometry)
            # First, since weights that are computed when a layer is called, as by pruning, are
            # stale.
            expected = twin(images.clone())
            built = build(twin).eval()
            difference = 0.0 if images.is_meta else _largest_error(expected, built(images))
        except Exception as error:
            raise RuntimeError(
                f"cannot fuse {name}: its copy in float64 cannot be run and measured "
                f"({type(error).__name__}: {error})"
            ) from error
        if not difference <= _TOLERANCE:  # so that NaN is refused
            raise RuntimeError(
                f"cannot fuse {name}: this {type(layer).__name__} computes something else than its "
                f"weights and statistics say (a difference of {difference:.2g} on random images); "
                "it may have another activation, a hook, or a forward of its own: take that out"
            )
        built = built.to(dtype := layer.geometry.weight.dtype)
        if not images.is_meta and not all(each.isfinite().all() for each in built.parameters()):
            raise RuntimeError(f"cannot fuse {name}: its weights would be too large for {dtype}")
        return built


def _random_images(conv: nn.Conv2d) -> Tensor:
    """Make images, (3, C, H, W), that are larger than the kernel and its padding."""

    def largest(value: Any) -> int:
        return max(value) if isinstance(value, tuple) else value

    reach = largest(conv.dilation) * (largest(conv.kernel_size) - 1)
    padding = 0 if isinstance(conv.padding, str) else largest(conv.padding)
    side = 2 * reach + padding + largest(conv.stride) + 2
    like: dict[str, Any] = dict(dtype=torch.float64, device="cpu")
    generator = torch.Generator("cpu").manual_seed(0)  # leaves the random numbers of others alone
    images = torch.randn(len(_SCALES), conv.in_channels, side, side, generator=generator, **like)
    images *= torch.tensor(_SCALES, **like)[:, None, None, None]
    return images.to(conv.weight.device)


def _largest_error(expected: Tensor, found: Tensor) -> float:
    """Compare each channel of each image by itself, since one may be much smaller than another."""
    if expected.shape != found.shape:
        return float("inf")
    error = (expected - found).abs().amax((2, 3))
    size = expected.abs().amax((2, 3))
    size = size + _ZERO * size.amax(1, keepdim=True)
    return float((error / size.clamp_min(torch.finfo(size.dtype).tiny)).max())


def fuse_model(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Return a model in which one convolution, with a bias, replaces each :class:`FusableLayer`.

    All layers are fused and measured before the first one is replaced, so an error leaves the model
    unchanged. If there is nothing to fuse, a warning says so. Hooks of a fused layer go with it.

    Args:
        model: A backbone, detector, segmenter, classifier or other model, in eval mode.
        inplace: Whether to change ``model`` itself, which is then returned, instead of a copy.
            Default: False.

    Raises:
        RuntimeError: The model is in training mode, its λ is not 1, or a layer, which is named,
            computes something else than the convolution.
        TypeError: A norm has no running statistics.
        ValueError: ``model`` is itself a :class:`FusableLayer`.

    Examples:
        >>> import mmvanilla
        >>> arch = dict(dims=(8, 16, 32), strides=(2, 2))
        >>> detector = nn.ModuleDict(dict(backbone=mmvanilla.VanillaNet(arch))).eval()
        >>> mmvanilla.count_fusable(detector)
        6
        >>> fused = mmvanilla.fuse_model(detector)
        >>> fused["backbone"].deploy, detector["backbone"].deploy
        (True, False)
    """
    if isinstance(model, FusableLayer):
        raise ValueError(f"{type(model).__name__} is a single layer; call its fuse() instead")
    places = find_layers(model, FusableLayer)
    if not places:
        warnings.warn(
            f"fuse_model found nothing to fuse in this {model._get_name()}, and returns it as it "
            "is; give it a VanillaNet or another model in training form",
            stacklevel=2,
        )
    fused = {layer: layer.fuse(paths[0]) for layer, paths in places.items()}
    if inplace:
        for layer, paths in places.items():
            replace_layer(model, paths, fused[layer])
        return model
    # What the memo has is not copied: wherever the model refers to a layer, its copy has the
    # convolution.
    with torch.inference_mode(False), torch.no_grad():
        return copy.deepcopy(model, {id(layer): conv for layer, conv in fused.items()})


def count_fusable(model: nn.Module) -> int:
    """Count the layers that :func:`fuse_model` would replace; 0 if the model is fused already."""
    return len(find_layers(model, FusableLayer)) + isinstance(model, FusableLayer)


def find_layers(model: nn.Module, kind: type[Any]) -> dict[Any, list[str]]:
    """Find the outermost layers of a kind, each with all of its paths, since it may be shared."""
    places: dict[Any, list[str]] = defaultdict(list)
    for prefix, parent in model.named_modules():
        if not isinstance(parent, kind):
            for name, child in parent._modules.items():  # named_children() gives one name of each
                if isinstance(child, kind):
                    places[child].append(f"{prefix}.{name}".lstrip("."))
    return places


def replace_layer(model: nn.Module, paths: list[str], layer: nn.Module) -> None:
    """Put a layer at all paths of another one."""
    for path in paths:
        parent, _, name = path.rpartition(".")
        model.get_submodule(parent)._modules[name] = layer
