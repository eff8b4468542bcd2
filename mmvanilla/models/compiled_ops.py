"""Give MMCV's compiled operators the memory order that they assume, whatever the model computes in.

They read the raw memory of their inputs as if all strides were plain. Given a tensor in
channels_last, some raise an error, and ``RoIAlign``, ``RoIAlignRotated`` and
``ModulatedDeformConv2d`` silently compute something else.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

_PACKAGE = "mmcv.ops."


def guard_compiled_ops(model: nn.Module) -> set[nn.Module]:
    """Let the modules of ``mmcv.ops`` in a model make their inputs contiguous before they run.

    Operators that are called as functions are not found.

    Returns:
        The modules of ``mmcv.ops`` and all modules inside of them, whose weights must have plain
        strides, too.
    """
    guarded: set[nn.Module] = set()
    for module in model.modules():
        if any(kind.__module__.startswith(_PACKAGE) for kind in type(module).__mro__):
            if _make_contiguous not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(_make_contiguous, with_kwargs=True)
            guarded.update(module.modules())
    return guarded


def _make_contiguous(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def plain(value: Any) -> Any:
        return value.contiguous() if isinstance(value, Tensor) else value

    return tuple(map(plain, args)), {name: plain(value) for name, value in kwargs.items()}
