"""Eager inference on a CPU with weights that oneDNN has repacked once.

In each call PyTorch passes a plain weight to oneDNN, which copies it into a layout of its own. In
VanillaNet's wide 1×1 layers, whose inputs have few pixels, this copy takes as long as the
convolution: a layer of 4096 × 4096 channels has a weight of 64 MB and an input of 49 pixels.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.models.compiled_ops import guard_compiled_ops
from mmvanilla.models.compiling import is_compiling
from mmvanilla.models.fusion import conv_geometry

# torch 2.1 has this function only under another name.
_is_autocast_enabled = (
    partial(torch.is_autocast_enabled, "cpu")
    if hasattr(torch, "get_autocast_dtype")
    else torch.is_autocast_cpu_enabled
)


class PackedConv2d(nn.Module):
    """A convolution for inference that keeps its weight in oneDNN's layout, in channels_last.

    The module owns its weight: a copy that is no parameter and that no optimiser or other module
    refers to. Only ``load_state_dict`` can change it, so the packed weight cannot become stale.
    ``state_dict()`` returns copies under the names of the plain convolution. Reading or setting
    ``weight`` or ``bias`` is an error, and so is training mode.

    A plain weight is kept beside the packed one for cases that oneDNN's operator does not support:
    gradients of the input, tracing, compiling, autocast, devices other than the CPU, and types
    other than float32.

    Args:
        conv: The plain convolution, whose weight and bias are copied.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._set(conv.weight, conv.bias)
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        for name, value in conv_geometry(conv).items():
            setattr(self, name, value)
        # The padding of nn.Conv2d, for cases that oneDNN's operator does not support.
        self._reversed_padding = conv._reversed_padding_repeated_twice
        super().train(False)

    def _set(self, weight: Tensor, bias: Tensor | None) -> None:
        """Copy the weight and bias, and drop the packed weight."""
        with torch.inference_mode(False), torch.no_grad():
            plain = weight.detach().clone(memory_format=torch.contiguous_format)
            # Neither parameters nor buffers, so that no code that visits these can write to them.
            self._plain = (plain, None if bias is None else bias.detach().clone())
        self._packed: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        if name in ("weight", "bias"):
            raise AttributeError(_REFUSAL.format(f"its {name} cannot be read"))
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("weight", "bias"):
            raise AttributeError(_REFUSAL.format(f"its {name} cannot be set"))
        super().__setattr__(name, value)

    def train(self, mode: bool = True) -> PackedConv2d:
        """Stay in eval mode.

        Raises:
            RuntimeError: ``mode`` is True.
        """
        if mode:
            raise RuntimeError(_REFUSAL.format("it cannot be trained"))
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W'), in channels_last where packed."""
        weight, bias = self._plain
        if is_compiling() or not self._can_pack(x):
            return self._run_plain(x, weight, bias)
        x = x.contiguous(memory_format=torch.channels_last)
        geometry: tuple[Any, ...] = (self.padding, self.stride, self.dilation, self.groups)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, x.shape)
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._packed, bias, *geometry, "none", [], ""
        )

    def _run_plain(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            mode: Any = self.padding_mode
            x = nn.functional.pad(x, self._reversed_padding, mode=mode)
            padding = 0
        geometry: tuple[Any, ...] = (self.stride, padding, self.dilation, self.groups)
        return nn.functional.conv2d(x, weight, bias, *geometry)

    def _can_pack(self, x: Tensor) -> bool:
        weight = self._plain[0]
        return bool(
            x.dtype == weight.dtype == torch.float32
            and x.device.type == weight.device.type == "cpu"
            and x.dim() == 4
            and type(x) is Tensor  # not a fake tensor, nor another subclass
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
            and not (torch.is_grad_enabled() and x.requires_grad)
            and not _is_autocast_enabled()
            and not torch.jit.is_tracing()
            and x.numel() > 0
            and torch.backends.mkldnn.is_available()
            and torch.backends.mkldnn.enabled
        )

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> PackedConv2d:
        super()._apply(fn, *args, **kwargs)
        weight, bias = self._plain
        # Functions such as share_memory_() return their argument, so pass a copy.
        self._set(fn(weight.clone()), None if bias is None else fn(bias.clone()))
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, tensor in zip(("weight", "bias"), self._plain, strict=True):
            if tensor is not None:
                destination[prefix + name] = tensor.clone()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        def take(name: str, own: Tensor) -> Tensor:
            found = state_dict.get(prefix + name)
            if found is None:
                missing_keys.extend([prefix + name] if strict else [])
            elif found.shape != own.shape:
                error_msgs.append(
                    f"size mismatch for {prefix}{name}: the checkpoint has {tuple(found.shape)}, "
                    f"the model has {tuple(own.shape)}."
                )
            else:
                return found.to(own)
            return own

        weight, bias = self._plain
        if bias is None and strict and prefix + "bias" in state_dict:
            unexpected_keys.append(prefix + "bias")
        self._set(take("weight", weight), None if bias is None else take("bias", bias))

    def __getstate__(self) -> dict[str, Any]:
        # A packed weight cannot be pickled or copied; the copy packs its own.
        return {**vars(self), "_packed": None}

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, groups={self.groups}"
        )


_REFUSAL = (
    "this convolution was packed by mmvanilla.pack_for_cpu, for inference only: {}; change the "
    "original model and pack it again, or use load_state_dict, which works on both"
)


def pack_for_cpu(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Turn every plain convolution of a model into a :class:`PackedConv2d`, for inference.

    This makes a fused model faster that runs eagerly on a CPU, without gradients; compiling (with
    freezing) and exporting pack the weights anyway. The packed convolutions have copies of the
    weights and no parameters, so later changes of ``model`` do not affect them.

    Args:
        model: A model of any kind; its inputs may have any memory format.
        inplace: Whether to change ``model`` itself instead of a copy. Default: False.

    Returns:
        The packed model: a copy, or ``model`` itself. It computes in channels_last, except in the
        modules of ``mmcv.ops``, which are left as they are.

    Raises:
        ValueError: The model has no plain ``nn.Conv2d`` inside.
    """
    if not inplace:
        model = copy.deepcopy(model)
    twins: dict[nn.Module, PackedConv2d] = {}
    kept = guard_compiled_ops(model)
    for parent in list(model.modules()):
        if parent in kept:  # a compiled operator reads what comes out as if it were contiguous
            continue
        for name, child in parent._modules.items():
            # Neither subclasses nor convolutions with hooks, whose additional work would be lost.
            if type(child) is nn.Conv2d and not (child._forward_hooks or child._forward_pre_hooks):
                if child not in twins:
                    twins[child] = PackedConv2d(child)
                parent._modules[name] = twins[child]
    if not twins and not any(isinstance(module, PackedConv2d) for module in model.modules()):
        raise ValueError(
            f"this {type(model).__name__} has no nn.Conv2d inside to pack; pass a model with plain "
            "convolutions, such as a fused one"
        )
    return model
