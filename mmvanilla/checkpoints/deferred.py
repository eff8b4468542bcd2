"""Tensors, arrays and log histories of a checkpoint, noted first and made later.

A pickle is read to its end before anything is made of it: by then the sizes of the storages are
known and checked, and no constructor of numpy or torch sees what the file says before we did.
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

# Numbers, truth values and texts: never objects, times or records.
_PLAIN_DTYPE = re.compile(r"^(b1|[iu][1248]|f[248]|c8|c16|[US]\d{1,6})$")


class Forbidden(pickle.UnpicklingError):
    """The pickle asks for more than plain values."""


def require(condition: bool, what: str) -> None:
    """Refuse a pickle whose content is not what its builder needs."""
    if not condition:
        raise pickle.UnpicklingError(f"it holds {what} that torch.save never writes")


class Named:
    """A name that the pickle may call; the call goes to a builder of ours."""

    def __init__(self, name: str, build: Callable[..., Any]) -> None:
        self.name, self.build = name, build


class Deferred:
    """A value that is made when the whole pickle has been read."""

    def set_state(self, state: Any) -> None:
        """Take what the pickle sets after building."""
        require(False, "a state")

    def make(self, finish: Callable[[Any], Any]) -> Any:
        """Return the value; ``finish`` makes what it refers to."""
        raise NotImplementedError


class StorageRef(Deferred):
    """A part of the file, of which tensors are views.

    Args:
        key: Its name in the file.
        dtype: Type of its elements.
        location: The device that it was saved from, as ``"cuda:0"``.
        numel: Number of its elements.
        offset: First element of a view of another storage (only in files before torch 0.4).
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
    """numpy's dtype; of its state only the byte order and a text's size are taken."""

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
    """An array of numpy; its content comes as a state."""

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
    """mmengine's log history: its numbers; its methods are the class's own."""

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
    """Make a flat array of ``count`` elements, checking that the bytes are as many."""
    require(len(raw) == count * dtype.itemsize, "an array whose content does not fit its shape")
    if dtype.itemsize == 0 or count == 0:
        return np.empty(count, dtype)
    # Native byte order, as numpy itself unpickles it; always a copy, which may be written to.
    return np.frombuffer(raw, dtype, count).astype(dtype.newbyteorder("="))
