"""Train and test with the channels of each pixel side by side in memory (channels_last)."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmvanilla.models.compiled_ops import guard_compiled_ops


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keeps the weights of convolutions in the memory format channels_last while a model runs.

    On CPUs, and on GPUs with tensor cores in half precision, convolutions are often faster in this
    format. Activations follow the weights, so nothing else has to change. Results differ from those
    of the usual format by rounding only.

    Weights are converted when training, validation or testing begins, after they were initialised
    or loaded. The averages of an ``EMAHook`` and the state of the optimiser have the same format,
    so that a resumed run gives the same weights bit for bit. Saved checkpoints have the usual
    strides: nobody who reads one sees a difference.

    The hook works with the toolboxes' own tools, too. Put it into ``default_hooks`` under any key,
    or into ``custom_hooks``.

    Examples:
        >>> default_hooks = dict(channels_last=dict(type="ChannelsLastHook"))
    """

    # The last one: it changes what all other hooks have put into a checkpoint.
    priority = "LOWEST"

    def before_train(self, runner: Any) -> None:
        """Convert the model, its averages and the state of its optimiser."""
        if to_channels_last(runner.model):
            _wrap_again(runner)
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                to_channels_last(hook.ema_model)
        wrapper = runner.optim_wrapper
        wrappers = list(wrapper.values()) if hasattr(wrapper, "values") else [wrapper]
        for each in wrappers:
            for parameter, state in each.optimizer.state.items():
                for name, value in state.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        state[name] = _strided_like(value, parameter)

    def before_val(self, runner: Any) -> None:
        """Convert the model, unless training has done it."""
        to_channels_last(runner.model)

    def before_test(self, runner: Any) -> None:
        """Convert the model."""
        to_channels_last(runner.model)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Give every tensor of the checkpoint the usual strides."""
        # Dicts that mmengine made for this checkpoint; the tensors may be those of the model.
        for name in ("state_dict", "ema_state_dict", "optimizer"):
            for holder, key, value in list(_tensors(checkpoint.get(name, {}))):
                # Not contiguous(): a kernel of one pixel may call itself so with other strides.
                holder[key] = value.clone(memory_format=torch.contiguous_format)


def to_channels_last(model: nn.Module) -> int:
    """Convert the parameters and buffers of four dimensions, in place.

    The modules of ``mmcv.ops`` are left as they are, and get their inputs in plain order: their
    compiled operators know no other.

    A model inside of a ``DistributedDataParallel`` must be converted before it is wrapped, which
    remembers the strides of its parameters and would give gradients of another order.

    Returns:
        The number of tensors that had another format.
    """
    converted = 0
    kept = {
        id(tensor)
        for module in guard_compiled_ops(model)
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    }
    for tensor in (*model.parameters(), *model.buffers()):
        if id(tensor) in kept:
            continue
        if tensor.dim() == 4 and not _is_channels_last(tensor):
            # Not contiguous(), which leaves the strides of a single channel as they are.
            strides = _channels_last_strides(tensor.shape)
            tensor.data = tensor.data.new_empty_strided(tensor.shape, strides).copy_(tensor.data)
            converted += 1
    return converted


def _is_channels_last(tensor: Tensor) -> bool:
    """Whether a convolution with this weight gives its output in channels_last.

    A weight of one input channel is contiguous in both formats, and its strides decide: with those
    of the usual format, a network for grey images would compute in it from end to end.
    """
    if tensor.shape[2] * tensor.shape[3] == 1:  # these follow their input
        return tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.stride() == _channels_last_strides(tensor.shape)


def _channels_last_strides(shape: torch.Size) -> tuple[int, ...]:
    _, channels, height, width = shape
    return channels * height * width, 1, channels * width, channels


def _wrap_again(runner: Any) -> None:
    """Let a wrapper of PyTorch's forget the strides that the parameters had."""
    wrapper = runner.model
    if not any(isinstance(module, DistributedDataParallel) for module in wrapper.modules()):
        return
    if not (is_model_wrapper(wrapper) and hasattr(runner, "wrap_model")):
        raise RuntimeError(
            f"ChannelsLastHook cannot wrap the model of a {type(runner).__name__} again, as "
            "DistributedDataParallel needs it; leave the hook out, or use mmengine's Runner"
        )
    is_compiled = "train_step" in vars(wrapper)
    module = wrapper.module
    # The old wrapper must be gone, or it would still listen to the gradients.
    runner.model = wrapper = None
    gc.collect()
    runner.model = runner.wrap_model(runner.cfg.get("model_wrapper_cfg"), module)
    if is_compiled:
        runner._maybe_compile("train_step")


def _strided_like(tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _tensors(node: Any) -> Iterator[tuple[Any, Any, Tensor]]:
    """Find the tensors in nested dicts and lists, each with its holder and its key."""
    entries = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in entries:
        if isinstance(value, Tensor):
            yield node, key, value
        elif isinstance(value, dict | list):
            yield from _tensors(value)
