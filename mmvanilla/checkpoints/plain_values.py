"""The list of classes and functions that a checkpoint may name, and their builders.

A name in a file gets a builder from :data:`BUILDERS`, or the file is refused. The builders check
their arguments, since numpy and torch do not: with a forged dtype numpy would use bytes of the file
as pointers.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from mmvanilla.checkpoints.deferred import (
    ArrayRef,
    DtypeRef,
    Forbidden,
    HistoryRef,
    Named,
    ParameterRef,
    TensorRef,
    from_bytes,
    require,
)

_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "Untyped": torch.uint8,
}
_STORAGE_NAME = re.compile(r"^torch(?:\.cuda|\.storage)?\.(\w+)Storage$")


def _scalar(dtype: Any, raw: Any) -> Any:
    require(isinstance(dtype, DtypeRef) and isinstance(raw, bytes), "a number of no plain type")
    return from_bytes(raw, dtype.make(lambda value: value), 1)[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Build bytes as protocol 2 writes them."""
    require(isinstance(text, str) and encoding in ("latin1", "latin-1"), "bytes")
    return text.encode("latin1")


def _bytearray(content: Any = b"", encoding: Any = None) -> bytearray:
    if isinstance(content, str):
        content = _encode(content, encoding)
    require(isinstance(content, bytes), "bytes")
    return bytearray(content)


def _collection(kind: Callable[..., Any]) -> Callable[..., Any]:
    def build(content: Any = ()) -> Any:
        require(isinstance(content, list | tuple | dict | set), f"a {kind.__name__}")
        return kind(content)

    return build


def _numbers(kind: Callable[..., Any]) -> Callable[..., Any]:
    def build(*values: Any) -> Any:
        require(
            all(type(value) in (int, float, type(None)) for value in values), f"a {kind.__name__}"
        )
        return kind(*values)

    return build


def _size(values: Any) -> torch.Size:
    require(isinstance(values, tuple | list) and all(type(n) is int for n in values), "a size")
    return torch.Size(values)


def _device(kind: Any, index: Any = None) -> torch.device:
    require(isinstance(kind, str) and type(index) in (int, type(None)), "a device")
    return torch.device(kind) if index is None else torch.device(kind, index)


def _tensor(*parts: Any) -> TensorRef:
    """Build a tensor from the arguments of torch._utils._rebuild_tensor or its version 2."""
    require(4 <= len(parts) <= 7, "a tensor")
    requires_grad = parts[4] if len(parts) > 4 else False
    storage, offset, size, stride = parts[:4]
    return TensorRef(storage, offset, size, stride, requires_grad, None)


def _tensor_v3(*parts: Any) -> TensorRef:
    require(7 <= len(parts) <= 8, "a tensor")
    storage, offset, size, stride, requires_grad, _, dtype = parts[:7]
    return TensorRef(storage, offset, size, stride, requires_grad, dtype)


def _parameter(data: Any, requires_grad: Any = True, *hooks_and_state: Any) -> ParameterRef:
    return ParameterRef(data, requires_grad)


def _with_attributes(build: Any, kind: Any, args: Any, state: Any) -> Any:
    """Build a tensor that had additional attributes, which are left out."""
    name = getattr(build, "name", "")
    require(name.startswith("torch._utils._rebuild_") and isinstance(args, tuple), "a tensor")
    return build.build(*args)


# The functions that mmengine stores as references to its own classes, and their values.
_ATTRIBUTES: dict[tuple[str, str], Any] = {
    ("mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler", name): getattr(
        OneCycleParamScheduler, name
    )
    for name in ("_annealing_cos", "_annealing_linear")
}
_HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"
_ATTRIBUTES.update({(_HISTORY, name): None for name in ("min", "max", "mean", "current")})


def _attribute(owner: Any, name: Any) -> Any:
    key = (getattr(owner, "name", ""), name)
    if not isinstance(name, str) or key not in _ATTRIBUTES:
        raise Forbidden("GLOBAL builtins.getattr")
    return _ATTRIBUTES[key]


def _no_call(*args: Any) -> Any:
    require(False, "a call")


def _namespace(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(**values)


BUILDERS: dict[str, Callable[..., Any]] = {
    "argparse.Namespace": _namespace,
    "_codecs.encode": _encode,
    "builtins.bytes": lambda: b"",
    "builtins.bytearray": _bytearray,
    "builtins.set": _collection(set),
    "builtins.frozenset": _collection(frozenset),
    "builtins.complex": _numbers(complex),
    "builtins.slice": _numbers(slice),
    "builtins.getattr": _attribute,
    "collections.OrderedDict": _collection(OrderedDict),
    "collections.Counter": _collection(Counter),
    "mmengine.config.config.ConfigDict": _collection(dict),
    _HISTORY: HistoryRef,
    "numpy.ndarray": _no_call,
    "numpy.dtype": DtypeRef,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.Tensor": _no_call,
    "torch.nn.parameter.Parameter": _parameter,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    **{owner: _no_call for owner, _ in _ATTRIBUTES if owner != _HISTORY},
}
for _package in ("numpy.core", "numpy._core"):  # as numpy 1 and numpy 2 write it
    BUILDERS[f"{_package}.multiarray._reconstruct"] = ArrayRef
    BUILDERS[f"{_package}.multiarray.scalar"] = _scalar


def look_up(name: str) -> Any:
    """Look up a name that a file contains.

    Args:
        name: Name of the module and the object, joined by a dot.

    Returns:
        A :class:`Named`, or a value: a torch.dtype, or a function of mmengine.

    Raises:
        Forbidden: The name is not on the list.
    """
    if name in BUILDERS:
        return Named(name, BUILDERS[name])
    storage = _STORAGE_NAME.match(name)
    if storage and storage[1] in _STORAGES:
        dtype = _STORAGES[storage[1]]
        return Named(name, lambda: dtype)
    module, _, attribute = name.rpartition(".")
    if (module, attribute) in _ATTRIBUTES:  # protocol 4 writes them without getattr
        return _ATTRIBUTES[(module, attribute)]
    value = vars(torch).get(attribute) if module == "torch" else None
    if isinstance(value, torch.dtype):
        return value
    raise Forbidden(f"GLOBAL {name}")


def storage_dtype(kind: Any) -> torch.dtype:
    """Return the type of a storage's elements from the storage class in the file."""
    require(isinstance(kind, Named) and bool(_STORAGE_NAME.match(kind.name)), "a storage")
    return kind.build()
