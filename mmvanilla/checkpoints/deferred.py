"""Placeholders for the tensors, arrays and log histories of a checkpoint.

A pickle is read to its end before any object is made from it. By then the sizes of the storages are
known and checked, so that no constructor of numpy or torch gets values from the file that were not
checked before.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

# Numbers, booleans and strings, but not objects, times or records.
_PLAIN_DTYPE = re.compile(r"^(b1|[iu][1248]|f[248]|c8|c16|[US]\d{1,6})$")


class Forbidden(pickle.UnpicklingError):
    """The pickle holds more than plain values."""


def require(condition: bool, what: str) -> None:
    """Refuse a pickle that does not fulfil a condition of its builder."""
    if not condition:
        raise pickle.UnpicklingError(f"it holds {what} that torch.save never writes")


class Named:
    """A name that the pickle may call; our own builder is called in its place."""

    def __init__(self, name: str, build: Callable[..., Any]) -> None:
        self.name, self.build = name, build


class Deferred:
    """A placeholder for a value that is made after the whole pickle has been read."""

    def set_state(self, state: Any) -> None:
        """Take the state that the pickle sets after the object is built."""
        require(False, "a state")

    def make(self, finish: Callable[[Any], Any]) -> Any:
        """Make the value; ``finish`` makes the values that it refers to."""
        raise NotImplementedError


class StorageRef(Deferred):
    """A storage: a part of the file, of which tensors are views.

    Args:
        key: Name of the storage in the file.
        dtype: Type of its elements.
        location: Device that it was saved from, as ``"cuda:0"``.
        numel: Number of its elements.
        offset: Index of the first element, for a view of another storage (only in files from
            before torch 0.4).
    """

    def __init__(
        self, key: str, dtype: torch.dtype, location: str, numel: int, offset: int = 0
    ) -> None:
        self.key, self.dtype, self.location = key, dtype, location
        self.numel, self.offset = numel, offset
        self.content: torch.UntypedStorage | None = None

    @property
    def num_bytes(self) -> int:
        """Size in bytes."""
        return self.numel * torch.empty((), dtype=self.dtype).element_size()


class TensorRef(Deferred):
    """A view of a storage."""

    def __init__(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, dtype: Any
    ) -> None:
        sizes = (offset, *size, *stride)
        require(isinstance(storage, StorageRef), "a tensor without storage")
        require(isinstance(dtype, torch.dtype | None), "a tensor without type")
        require(all(type(n) is int and n >= 0 for n in sizes), "a tensor of no size")
        require(len(size) == len(stride), "a tensor whose strides do not fit its size")
        self.storage, self.offset = storage, offset
        self.size, self.stride = tuple(size), tuple(stride)
        self.requires_grad, self.dtype = requires_grad is True, dtype or storage.dtype

    def make(self, finish: Callable[[Any], Any]) -> torch.Tensor:
        """See :meth:`Deferred.make`."""
        storage = self.storage
        assert storage.content is not None, "storages are read before tensors are made"
        empty = torch.empty((0,), dtype=self.dtype, device=storage.content.device)
        offset = storage.offset + self.offset
        last = offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        fits = (last + 1) * empty.element_size() <= storage.content.nbytes()
        require(fits or 0 in self.size, "a tensor that is larger than its storage")
        empty.set_(storage.content, offset, self.size, self.stride)
        return empty.requires_grad_() if self.requires_grad else empty


class ParameterRef(Deferred):
    """A tensor that was a parameter."""

    def __init__(self, data: Any, requires_grad: Any) -> None:
        require(isinstance(data, TensorRef), "a parameter without tensor")
        self.data, self.requires_grad = data, requires_grad is True

    def make(self, finish: Callable[[Any], Any]) -> torch.nn.Parameter:
        """See :meth:`Deferred.make`."""
        return torch.nn.Parameter(finish(self.data), self.requires_grad)


class DtypeRef(Deferred):
    """A dtype of numpy; only the byte order and the size of strings are taken from its state."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        require(isinstance(code, str) and bool(_PLAIN_DTYPE.match(code)), "a type of array")
        self.code, self.order = code, "="

    def set_state(self, state: Any) -> None:
        """See :meth:`Deferred.set_state`."""
        size = state[5] if isinstance(state, tuple) and len(state) > 5 else None
        require(
            isinstance(size, int)
            and state[1] in ("<", ">", "|", "=")
            and all(part is None for part in state[2:5])
            and (size == -1 or self.code[0] in "US"),
            "a type of array with a forged state",
        )
        self.order = state[1]

    def make(self, finish: Callable[[Any], Any]) -> np.dtype:
        """See :meth:`Deferred.make`."""
        return np.dtype(self.code).newbyteorder(self.order)


class ArrayRef(Deferred):
    """An array of numpy; the pickle sets its content as a state."""

    def __init__(self, kind: Any, shape: Any, typecode: Any) -> None:
        require(isinstance(kind, Named) and kind.name == "numpy.ndarray", "an array of a class")
        self.state: tuple[Any, ...] = ()

    def set_state(self, state: Any) -> None:
        """See :meth:`Deferred.set_state`."""
        require(isinstance(state, tuple) and len(state) == 5, "an array without content")
        _, shape, dtype, in_fortran_order, raw = state
        require(
            isinstance(shape, tuple)
            and all(type(n) is int and n >= 0 for n in shape)
            and isinstance(dtype, DtypeRef)
            and isinstance(raw, bytes),
            "an array with a forged content",
        )
        self.state = (shape, dtype, "F" if in_fortran_order else "C", raw)

    def make(self, finish: Callable[[Any], Any]) -> np.ndarray:
        """See :meth:`Deferred.make`."""
        require(bool(self.state), "an array without content")
        shape, dtype, order, raw = self.state
        return from_bytes(raw, dtype.make(finish), math.prod(shape)).reshape(shape, order=order)


class HistoryRef(Deferred):
    """A log history of mmengine; only its numbers are taken from the file."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def set_state(self, state: Any) -> None:
        """See :meth:`Deferred.set_state`."""
        require(isinstance(state, dict), "a log history without content")
        self.state = state

    def make(self, finish: Callable[[Any], Any]) -> HistoryBuffer:
        """See :meth:`Deferred.make`."""
        values, counts, length = (
            finish(self.state.get(name))
            for name in ("_log_history", "_count_history", "max_length")
        )
        are_arrays = all(
            isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in "biuf"
            for array in (values, counts)
        )
        require(
            are_arrays and len(values) == len(counts) and type(length) is int and length > 0,
            "a log history with a forged content",
        )
        return HistoryBuffer(values, counts, length)


def from_bytes(raw: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    """Make a flat array of ``count`` elements, after checking the number of bytes."""
    require(len(raw) == count * dtype.itemsize, "an array whose content does not fit its shape")
    if dtype.itemsize == 0 or count == 0:
        return np.empty(count, dtype)
    # In native byte order, as numpy itself unpickles arrays, and always a writable copy.
    return np.frombuffer(raw, dtype, count).astype(dtype.newbyteorder("="))
