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


class PackedConv2d(nn.Module):
    """A convolution for inference that keeps its weight in oneDNN's layout, in channels_last.

    It owns its weight: a copy that no parameter, no optimiser and no other module refers to. There
    is no way to write to it but ``load_state_dict``, so the packed weight cannot become stale.
    ``state_dict()`` hands out copies under the names of the plain convolution. Reading or setting
    ``weight`` or ``bias``, and training mode, are refused.

    What oneDNN's own operator cannot do runs with a plain weight, which is kept beside the packed
    one: gradients of the input, tracing, compiling, autocast, other devices than the CPU, other
    types than float32.

    Args:
        conv: The plain convolution, whose weight and bias are copied.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._set(conv.weight, conv.bias)
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        for name, value in conv_geometry(conv).items():
            setattr(self, name, value)
        # nn.Conv2d's own forward for what oneDNN's operator cannot do; a function, not a module.
        self._reversed_padding = conv._reversed_padding_repeated_twice
        super().train(False)

    def _set(self, weight: Tensor, bias: Tensor | None) -> None:
        """Own copies, and forget what was packed before."""
        with torch.inference_mode(False), torch.no_grad():
            plain = weight.detach().clone(memory_format=torch.contiguous_format)
            # Neither parameters nor buffers: nothing that walks over a model may write to them.
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
            RuntimeError: Training mode is asked for.
        """
        if mode:
            raise RuntimeError(_REFUSAL.format("it cannot be trained"))
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) in, (N, C_out, H', W') out, in channels_last where packed."""
        weight, bias = self._plain
        if _is_compiling() or not self._can_pack(x):
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
            and type(x) is Tensor  # no fake or other made-up tensor
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
        # Functions such as share_memory_() return their argument: copies all the same.
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
        own = dict(zip(("weight", "bias"), self._plain, strict=True))
        given = {name: state_dict.get(prefix + name) for name in own}
        for name, tensor in own.items():
            key, found = prefix + name, given[name]
            if tensor is None:
                if strict and found is not None:
                    unexpected_keys.append(key)
                given[name] = None
            elif found is None:
                given[name] = tensor
                if strict:
                    missing_keys.append(key)
            elif found.shape != tensor.shape:
                given[name] = tensor
                error_msgs.append(
                    f"size mismatch for {key}: the checkpoint has {tuple(found.shape)}, the model "
                    f"{tuple(tensor.shape)}."
                )
            else:
                given[name] = found.to(tensor)
        self._set(given["weight"], given["bias"])

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights cannot be pickled or copied; the copy makes its own.
        return {**vars(self), "_packed": None}

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, groups={self.groups}"
        )


_REFUSAL = (
    "this convolution was packed by mmvanilla.pack_for_cpu, for inference only: {}; change the "
    "model that it was packed from and pack that anew (load_state_dict works on both)"
)


def pack_for_cpu(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Turn every plain convolution of a model into a :class:`PackedConv2d`, for inference.

    Worth it for a fused model that runs eagerly on a CPU, without gradients; a compiled (with
    freezing) or exported one is packed anyway. The packed convolutions have weights of their own
    and no parameters: writing to those of ``model`` later changes nothing in them.

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
                if child not in twins:
                    twins[child] = PackedConv2d(child)
                parent._modules[name] = twins[child]
    if not twins and not any(isinstance(module, PackedConv2d) for module in model.modules()):
        raise ValueError(
            f"this {type(model).__name__} has no nn.Conv2d inside that could be packed"
        )
    return model
