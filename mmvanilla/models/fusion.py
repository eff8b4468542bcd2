"""Fuse layers of the training form into plain convolutions, one by one or in a whole model.

Everything here is exact in eval mode, and nothing here knows VanillaNet. Each level uses only the
one below it: tensors (:mod:`mmvanilla.models.fusion_algebra`), modules (:func:`read_conv_norm`,
:class:`FusableLayer`), and models (:func:`fuse_model`).
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmvanilla.models.data_flow import norms_behind
from mmvanilla.models.fuse_result import with_old_uses
from mmvanilla.models.fusion_algebra import contiguous_copy, fuse_conv_bn

# The arguments of nn.Conv2d besides channels and bias.
GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")


def conv_geometry(conv: nn.Conv2d) -> dict[str, Any]:
    """Return the arguments of a convolution that :data:`GEOMETRY` names."""
    return {name: getattr(conv, name) for name in GEOMETRY}


def require_running_stats(norm: nn.Module) -> None:
    """Refuse a norm that cannot be folded into a convolution.

    An ``nn.Identity`` passes: mmcv's ``fuse_conv_bn`` leaves one where it folded a norm.

    Raises:
        TypeError: The norm keeps no running statistics (GroupNorm, LayerNorm, …).
    """
    if isinstance(norm, nn.Identity):
        return
    if getattr(norm, "running_mean", None) is None or getattr(norm, "running_var", None) is None:
        raise TypeError(
            f"cannot fuse a {type(norm).__name__} without running statistics into a convolution; "
            "train with norm_cfg=dict(type='BN') or dict(type='SyncBN')"
        )


def read_conv_norm(conv: nn.Conv2d, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of the one convolution that equals ``conv`` and its norm.

    Args:
        conv: A convolution with ``weight`` and ``bias``.
        norm: The batch norm (or SyncBN) that takes its output. None, or the Identity that mmcv's
            ``fuse_conv_bn`` leaves behind: there is no norm.

    Returns:
        Weight and bias, detached from the graph, with contiguous strides.

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
    def brings_no_bias(self) -> bool:
        """True if the network expects a convolution without bias and brings its own norm."""
        return False

    @property
    @abstractmethod
    def geometry(self) -> nn.Conv2d:
        """A convolution with the stride, padding, dilation and groups of the fused one."""

    @abstractmethod
    def fused_tensors(self) -> tuple[Tensor, Tensor]:
        """Return the weight and bias of the one convolution that equals this layer in eval mode."""

    def check_fusable(self) -> None:
        """Refuse the states in which fusing would change the results.

        Raises:
            RuntimeError: The layer is in training mode, or its ``forward`` was replaced.
            TypeError: A norm has no running statistics.
        """
        if self.training:
            raise RuntimeError(
                f"cannot fuse a {type(self).__name__} in training mode: batch norm would still "
                "use the batch's statistics; call model.eval() first"
            )
        if "forward" in vars(self):
            raise RuntimeError(
                f"cannot fuse a {type(self).__name__} whose forward was replaced on the instance: "
                "it may compute something else than its weights say; remove the replacement first"
            )
        for child in self.children():
            if isinstance(child, FusableLayer):
                child.check_fusable()

    def fuse(self) -> nn.Conv2d:
        """Build the one convolution, with a bias, that equals this layer, which is not changed.

        Raises:
            RuntimeError: The layer is in training mode, or its λ is not 1.
            TypeError: A norm has no running statistics.
        """
        self.check_fusable()
        like = self.geometry
        # Tensors that are created in inference mode could not be trained.
        with torch.inference_mode(False), torch.no_grad():
            weight, bias = self.fused_tensors()
            with torch.device("meta"):
                conv = nn.Conv2d(like.in_channels, weight.shape[0], **conv_geometry(like))
            conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
        # A frozen layer stays frozen.
        conv.requires_grad_(any(parameter.requires_grad for parameter in self.parameters()))
        return conv.eval()


# The hooks of forward, which the plain module keeps, since they may change inputs and outputs.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def fuse_model(model: nn.Module, inplace: bool = False, move_bias: bool = True) -> nn.Module:
    """Return a model in which one convolution replaces each :class:`FusableLayer`.

    The model may be a backbone, or a detector, segmenter or classifier. All layers are checked
    before the first one is replaced, so an error leaves the model unchanged. If there is nothing to
    fuse, a warning says so, and the model that is returned is the same as the given one.

    The fused convolutions have a bias. Where the network expects a convolution without bias, the
    bias moves into the batch norm that follows, but only if it is proven that this norm, and
    nothing else, takes the convolution's output (see :mod:`mmvanilla.models.data_flow`).

    Args:
        model: A model in eval mode.
        inplace: Whether to change ``model`` itself, which is then returned, instead of a copy.
            Default: False.
        move_bias: Whether a bias may move into a norm; if not, every bias stays in its convolution.
            Default: True.

    Returns:
        The fused model: a copy, or ``model`` itself with ``inplace``. For one release it also
        answers as the tuple ``(model, num_fused)`` that this function returned before, with a
        FutureWarning; :func:`count_fusable` gives the number of layers.

    Raises:
        RuntimeError: The model is in training mode, or its λ is not 1.
        TypeError: A norm has no running statistics.
        ValueError: ``model`` is itself a :class:`FusableLayer`.

    Examples:
        >>> import mmvanilla
        >>> arch = dict(dims=(8, 16, 32), strides=(2, 2))
        >>> detector = nn.ModuleDict(dict(backbone=mmvanilla.VanillaNet(arch))).eval()

        A fused copy of the whole model, which itself stays as it is:

        >>> mmvanilla.count_fusable(detector)
        6
        >>> fused = mmvanilla.fuse_model(detector)
        >>> fused["backbone"].deploy, detector["backbone"].deploy
        (True, False)

        The backbone alone, in place:

        >>> detector["backbone"].switch_to_deploy()
        >>> detector["backbone"].deploy
        True
    """
    check_fusable(model)
    if not inplace:
        with torch.inference_mode(False), torch.no_grad():
            model = copy.deepcopy(model)
    num_fused = fuse_layers(model, move_bias)
    if not num_fused:
        warnings.warn(
            f"fuse_model found nothing to fuse in this {model._get_name()}, and returns it "
            "unfused: it is fused already, or it has no layers of mmvanilla; give it a VanillaNet "
            "or another model in training form",
            stacklevel=2,
        )
    return with_old_uses(model, num_fused)


def count_fusable(model: nn.Module) -> int:
    """Count the layers that :func:`fuse_model` would replace; 0 if the model is fused already.

    Args:
        model: A model of any kind, in training or eval mode.
    """
    return len(_find_fusable(model)) + isinstance(model, FusableLayer)


def check_fusable(model: nn.Module) -> None:
    """Refuse a model that cannot be fused as it is, as :func:`fuse_model` does.

    Raises:
        RuntimeError: The model is in training mode, or its λ is not 1.
        TypeError: A norm has no running statistics.
        ValueError: ``model`` is itself a :class:`FusableLayer`.
    """
    if isinstance(model, FusableLayer):
        raise ValueError(f"{type(model).__name__} is a single layer; call its fuse() instead")
    for module in model.modules():
        if isinstance(module, FusableLayer):
            module.check_fusable()


def fuse_layers(model: nn.Module, move_bias: bool = True) -> int:
    """Fuse a model in place, as :func:`fuse_model` does, and return the number of its layers.

    Raises:
        RuntimeError: The model is in training mode, or its λ is not 1.
        TypeError: A norm has no running statistics.
        ValueError: ``model`` is itself a :class:`FusableLayer`.
    """
    check_fusable(model)
    with torch.inference_mode(False), torch.no_grad():
        places = _find_fusable(model)
        without_bias = [layer for layer in places if layer.brings_no_bias and move_bias]
        norms = norms_behind(model, without_bias)
        for layer, its_places in places.items():
            conv = layer.fuse()
            _keep_hooks(layer, conv)
            if layer in norms:
                _move_bias(conv, norms[layer])
            for parent, name in its_places:
                parent._modules[name] = conv
    return len(places)


def _find_fusable(model: nn.Module) -> dict[FusableLayer, list[tuple[nn.Module, str]]]:
    """Find the outermost fusable layers, each with its parents and its name in each of them."""
    # named_children() would give only one of the names of a layer that several heads share, and it
    # must still be shared afterwards.
    places: dict[FusableLayer, list[tuple[nn.Module, str]]] = defaultdict(list)
    for parent in model.modules():
        if not isinstance(parent, FusableLayer):
            for name, child in parent._modules.items():
                if isinstance(child, FusableLayer):
                    places[child].append((parent, name))
    return places


def _keep_hooks(layer: nn.Module, conv: nn.Module) -> None:
    for name in _HOOKS:
        getattr(conv, name).update(getattr(layer, name))


def _move_bias(conv: nn.Conv2d, norms: list[Any]) -> None:
    """Move the bias of a convolution into every norm that takes its output."""
    assert conv.bias is not None
    for norm in norms:
        # norm(x + b) is norm(x) with its mean moved by -b.
        mean = norm.running_mean.double() - conv.bias.double()
        norm.running_mean = contiguous_copy(mean, norm.running_mean.dtype)
    conv.bias = None
