"""Tell whether torch.compile or torch.export is tracing; keep from old ones what they break."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., object])

# Python 3.13.0 hides changes of attributes from the compiler (CPython issue 125608).
_HIDES_CHANGES = sys.version_info[:3] == (3, 13, 0)

# torch 2.1 has it under another name only.
is_compiling = getattr(torch.compiler, "is_compiling", None) or torch._utils.is_compiling


def eager_where_compiled_wrongly(function: _Function) -> _Function:
    """Decorate what recomputes activations, where a compiled model would change statistics twice.

    The compiler of torch 2.1 does so, and on Python 3.13.0 any of them, since some layers run
    eagerly there. The function runs eagerly then, in the middle of a compiled model.
    """
    if hasattr(torch.compiler, "is_compiling") and not _HIDES_CHANGES:
        return function
    return torch.compiler.disable(function)


def eager_where_changes_are_missed(function: _Function) -> _Function:
    """Decorate what reads an attribute that changes: Python 3.13.0 hides that from the compiler.

    A compiled model would go on with the old value there; Python 3.13.1 is right again.
    """
    return torch.compiler.disable(function) if _HIDES_CHANGES else function
