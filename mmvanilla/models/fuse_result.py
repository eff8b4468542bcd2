"""Let old uses of what `fuse_model` returns work for one more release, with a warning.

Up to version 0.1 ``fuse_model`` returned a tuple of the fused model and the number of its layers.
Now it returns the model, and :func:`with_old_uses` lets that model answer as the tuple did. This
file goes away with the next release, and nothing else depends on it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from torch import nn

# How many layers of each model were fused, outside of the models, so that no state dict, pickle or
# copy has it.
_COUNTS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_CLASSES: WeakValueDictionary[tuple[type, frozenset[str]], type] = WeakValueDictionary()

_real_class: Any = vars(object)["__class__"]


class FuseResult:
    """The type of a model that still answers as the result of the old ``fuse_model``.

    Everything that asks for the class of the model, copies it or pickles it finds the class that
    it was built with.
    """

    _original: type

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep quiet: a base class that registers its subclasses need not know of this one."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        with _as_built(self):
            return copy.deepcopy(self, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        with _as_built(self):
            return self.__reduce_ex__(protocol)


@contextmanager
def _as_built(model: Any) -> Iterator[None]:
    kind = type(model)
    _real_class.__set__(model, kind._original)
    try:
        yield
    finally:
        _real_class.__set__(model, kind)


def _warn(old: str, new: str) -> None:
    warnings.warn(
        f"fuse_model returns the fused model itself; {old} is deprecated and will stop working in "
        f"the next release: {new}",
        FutureWarning,
        stacklevel=3,
    )


def _get_model(self: Any) -> Any:
    """Return the model itself, with a warning."""
    _warn("its .model", "leave .model out")
    return self


def _get_num_fused(self: Any) -> int:
    """Return how many layers were fused, with a warning."""
    _warn("its .num_fused", "call mmvanilla.count_fusable(model) before fusing")
    return _COUNTS.get(self, 0)


def _iterate(self: Any) -> Iterator[Any]:
    _warn(
        "unpacking it",
        "write fused = fuse_model(model), and count with mmvanilla.count_fusable(model) before",
    )
    return iter((self, _COUNTS.get(self, 0)))


def _get_item(self: Any, index: Any) -> Any:
    _warn(
        "indexing it",
        "write fused = fuse_model(model), and count with mmvanilla.count_fusable(model) before",
    )
    return (self, _COUNTS.get(self, 0))[index]


_OLD_USES: dict[str, Any] = {
    "model": property(_get_model),
    "num_fused": property(_get_num_fused),
    "__iter__": _iterate,
    "__getitem__": _get_item,
}


def with_old_uses(model: nn.Module, num_fused: int) -> nn.Module:
    """Let ``.model``, ``.num_fused``, unpacking and indexing of a fused model work, and warn.

    What the model itself has of these four stays its own: a detector with an attribute ``model``,
    or an ``nn.Sequential``, which can be indexed.

    Args:
        model: The fused model.
        num_fused: Number of layers that were fused.

    Returns:
        The same object.
    """
    if isinstance(model, FuseResult):
        _COUNTS[model] = num_fused
        return model
    kind = type(model)
    lacking = frozenset(
        name for name in _OLD_USES if not hasattr(kind if name.startswith("__") else model, name)
    )
    try:
        transitional = _CLASSES.get((kind, lacking)) or _make_class(kind, lacking)
        _real_class.__set__(model, transitional)
    except TypeError:
        return model  # a class that allows no subclass, or none of the same layout
    _CLASSES[kind, lacking] = transitional
    _COUNTS[model] = num_fused
    return model


def _make_class(kind: type, lacking: frozenset[str]) -> type:
    def read(self: Any) -> type:
        return kind

    def write(self: Any, other: type) -> None:
        _real_class.__set__(self, other)

    content = {name: _OLD_USES[name] for name in lacking}
    content |= {
        "__slots__": (),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__class__": property(read, write),
        "_original": kind,
    }
    # Or torch.jit.script would read and compile these properties.
    for name in ("__jit_ignored_attributes__", "__jit_unused_properties__"):
        content[name] = [*getattr(kind, name, ()), "__class__", "model", "num_fused"]
    metaclass: Any = type(kind)
    return metaclass(kind.__name__, (FuseResult, kind), content)
