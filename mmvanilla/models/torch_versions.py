"""What differs between the versions of torch where a model is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., object])

# Before torch 2.2 it has another name.
is_compiling = getattr(torch.compiler, "is_compiling", None) or torch._utils.is_compiling


def eager_on_old_torch(function: _Function) -> _Function:
    """Decorate what the compiler of torch 2.1 gets wrong: there it runs eagerly.

    That compiler does not notice that an attribute of a module has changed, and recomputes
    activations with their effects on statistics.
    """
    return function if hasattr(torch.compiler, "is_compiling") else torch.compiler.disable(function)
