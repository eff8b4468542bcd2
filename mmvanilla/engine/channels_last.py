"""Train and test with the channels of each pixel side by side in memory (channels_last)."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keeps the weights of convolutions in the memory format channels_last while a model runs.

    On CPUs, and on GPUs with tensor cores in half precision, convolutions are often faster in this
    format. Activations follow the weights; results differ by rounding only. The averages of an
    ``EMAHook`` and the state of the optimiser have the same format, so a resumed run gives the same
    weights bit for bit. Saved checkpoints have the usual strides.
    """

    priority = "LOWEST"  # it changes what all other hooks have put into a checkpoint

    def before_train(self, runner: Any) -> None:
        """Convert the model, its averages and the state of its optimiser."""
        if to_channels_last(runner.model):
            wrap_again(runner)
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                to_channels_last(hook.ema_model)
                rebind(hook.ema_model)
        wrapper = runner.optim_wrapper
        for each in wrapper.values() if hasattr(wrapper, "values") else [wrapper]:
            for parameter, state in each.optimizer.state.items():
                for name, value in state.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        state[name] = value.new_empty_strided(value.shape, parameter.stride())
                        state[name].copy_(value)

    def before_val(self, runner: Any) -> None:
        """Convert the model, unless training has done it."""
        to_channels_last(runner.model)

    before_test = before_val

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Give every tensor of the checkpoint the usual strides."""
        # Dicts that mmengine made for this checkpoint; the tensors may be those of the model.
        for name in ("state_dict", "ema_state_dict", "optimizer"):
            for holder, key, value in list(_tensors(checkpoint.get(name, {}))):
                # Not contiguous(): a kernel of one pixel may call itself so with other strides.
                holder[key] = value.clone(memory_format=torch.contiguous_format)


def to_channels_last(model: nn.Module) -> int:
    """Convert the parameters and buffers of four dimensions, in place, and return their number.

    A model with compiled operators of MMCV stays as it is, and a warning says so: they know the
    usual strides only, and some would silently compute something else. torchvision's, which stand
    in for them, know both. ``DistributedDataParallel`` must wrap a model after this: it remembers
    strides.
    """
    if _has_compiled_ops(model):
        text = "it stays in the usual memory format, the only one that compiled MMCV knows"
        print_log(f"{type(model).__name__}: {text}", "current", logging.WARNING)
        return 0
    converted = 0
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() != 4:
            continue
        # Not contiguous(), which leaves the strides of a single channel as they are: a network for
        # grey images would compute in the usual format from end to end.
        _, channels, height, width = tensor.shape
        strides = (channels * height * width, 1, channels * width, channels)
        if tensor.stride() != strides:
            tensor.data = tensor.data.new_empty_strided(tensor.shape, strides).copy_(tensor.data)
            converted += 1
    return converted


def _has_compiled_ops(model: nn.Module) -> bool:
    """Look for modules of ``mmcv.ops``; operators that are called as functions are not found."""
    library = getattr(sys.modules.get("mmcv._ext"), "__file__", None)
    if library is None or library.endswith(".py"):  # mmcv-lite, or the stand-in
        return False
    kinds = (kind for module in model.modules() for kind in type(module).__mro__)
    return any(kind.__module__.startswith("mmcv.ops.") for kind in kinds)


def rebind(average: Any) -> None:
    """Let an average of mmengine forget the tensors that its module had."""
    inner, whole = average.module, average.update_buffers
    average.avg_parameters = inner.state_dict() if whole else dict(inner.named_parameters())


def wrap_again(runner: Any) -> None:
    """Let DistributedDataParallel forget the shapes and strides that the parameters had."""
    if not isinstance(runner.model, DistributedDataParallel):
        return
    is_compiled = "train_step" in vars(runner.model)
    module = runner.model.module
    # The old wrapper must be gone, or it would still listen to the gradients.
    runner.model = None
    gc.collect()
    runner.model = runner.wrap_model(runner.cfg.get("model_wrapper_cfg"), module)
    if is_compiled:
        runner._maybe_compile("train_step")


def _tensors(node: Any) -> Iterator[tuple[Any, Any, Tensor]]:
    """Find the tensors in nested dicts and lists, each with its holder and its key."""
    entries = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in entries:
        if isinstance(value, Tensor):
            yield node, key, value
        elif isinstance(value, dict | list):
            yield from _tensors(value)
