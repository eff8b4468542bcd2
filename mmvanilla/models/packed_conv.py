"""Eager inference on a CPU with weights that oneDNN has repacked once.

PyTorch hands oneDNN a plain weight with every call, and oneDNN copies it into its own layout every
time. In VanillaNet's wide 1×1 layers, which see few pixels, that copy takes as long as the
convolution: a 4096 × 4096 layer has 64 MB to copy and 49 pixels to compute.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.models.fusion import conv_geometry

# torch 2.1 has these under other names only.
_is_compiling = getattr(torch.compiler, "is_compiling", None) or torch._utils.is_compiling
_is_autocast_enabled = (
    partial(torch.is_autocast_enabled, "cpu")
    if hasattr(torch, "get_autocast_dtype")
    else torch.is_autocast_cpu_enabled
)


class PackedConv2d(nn.Conv2d):
    """A convolution that keeps its weight in oneDNN's layout too, and runs in channels_last.

    The plain weight stays what it is, for state dicts, copies and export; the packed one is made in
    the first forward pass and takes as much memory again. It is made anew when the weight changes,
    unless somebody writes through ``weight.data``.

    What oneDNN's own operator cannot do runs as in ``nn.Conv2d``: gradients, tracing, compiling,
    autocast, other devices than the CPU, other types than float32.
    """

    _packed: Tensor | None = None
    _packed_from: tuple[Tensor, int, int] | None = None

    @classmethod
    def like(cls, conv: nn.Conv2d) -> PackedConv2d:
        """The same convolution, with the same parameters (shared, not copied).

        Args:
            conv: A plain convolution.
        """
        channels = (conv.in_channels, conv.out_channels)
        with torch.device("meta"):
            twin = cls(*channels, bias=conv.bias is not None, **conv_geometry(conv))
        twin.weight, twin.bias = conv.weight, conv.bias
        return twin.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) in, (N, C_out, H', W') out, in channels_last where packed."""
        if _is_compiling() or not self._can_pack(x):
            return super().forward(x)
        x = x.contiguous(memory_format=torch.channels_last)
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        source = (self.weight, self.weight.data_ptr(), self.weight._version)
        if self._packed is None or not _is_same(source, self._packed_from):
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight.detach(), *geometry, x.shape
            )
            self._packed_from = source
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._packed, self.bias, *geometry, "none", [], ""
        )

    def _can_pack(self, x: Tensor) -> bool:
        return bool(
            x.dtype == self.weight.dtype == torch.float32
            and x.device.type == self.weight.device.type == "cpu"
            and x.dim() == 4
            and type(x) is Tensor  # no fake or other made-up tensor
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
            and not torch.is_grad_enabled()
            and not _is_autocast_enabled()
            and not torch.jit.is_tracing()
            and x.numel() > 0
            and not self.weight.is_inference()  # these do not say when they change
            and torch.backends.mkldnn.is_available()
            and torch.backends.mkldnn.enabled
        )

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights cannot be pickled or copied; the copy makes its own.
        return {key: value for key, value in vars(self).items() if not key.startswith("_packed")}


def _is_same(source: tuple[Tensor, int, int], packed: tuple[Tensor, int, int] | None) -> bool:
    return packed is not None and source[0] is packed[0] and source[1:] == packed[1:]


def pack_for_cpu(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Turn every plain convolution of a model into a :class:`PackedConv2d`.

    Worth it for a fused model that runs eagerly on a CPU, under ``torch.no_grad()``; a compiled
    (with freezing) or exported one is packed anyway.

    Args:
        model: Any model; images may come in any memory format.
        inplace: Change ``model`` itself. Default: a copy of it.

    Returns:
        The copy, or ``model``. It runs in channels_last inside.

    Raises:
        ValueError: There is no plain ``nn.Conv2d`` inside the model.
    """
    if not inplace:
        model = copy.deepcopy(model)
    twins: dict[nn.Module, PackedConv2d] = {}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            # Not subclasses, nor convolutions with hooks: what they do besides would be lost.
            if type(child) is nn.Conv2d and not (child._forward_hooks or child._forward_pre_hooks):
                parent._modules[name] = twins.setdefault(child, PackedConv2d.like(child))
    if not twins and not any(isinstance(module, PackedConv2d) for module in model.modules()):
        raise ValueError(
            f"this {type(model).__name__} has no nn.Conv2d inside that could be packed"
        )
    return model
