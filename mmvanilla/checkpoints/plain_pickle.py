"""A pickle module for ``torch.load`` that knows tensors and plain values, and nothing that acts.

A pickle runs code by naming a callable. Here each name is looked up in :data:`ALLOWED`, and a file
with any other name is refused. ``torch.load(weights_only=True)`` does not serve instead: only from
torch 2.6 on can it be told of the few names that the authors' files and mmengine's checkpoints need
besides, and its versions before had a hole (CVE-2025-32434).
"""

from __future__ import annotations

import pickle
from collections import Counter, OrderedDict
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

_PLAIN_KINDS = "biufcUS"  # truth values, numbers, and texts


class Unpickler(pickle.Unpickler):
    """Builds what :data:`ALLOWED` has."""

    def find_class(self, module: str, name: str) -> Any:
        """Look up a name in a file."""
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        full_name = f"{module}.{name}".replace("__builtin__", "builtins")
        if full_name not in ALLOWED:
            raise pickle.UnpicklingError(
                f"it names {full_name}, which is not allowed here, as it could run code"
            )
        found = ALLOWED[full_name]
        # A function of its own each time, since a pickle can set attributes of what it names.
        return found if isinstance(found, type | str) else lambda *args: found(*args)


def load(file: IO[bytes], **options: Any) -> Any:
    """Do for ``torch.load`` what ``pickle.load`` does."""
    return Unpickler(file, **options).load()


class _Dtype:
    """Stands for numpy's dtype: a forged one could make numpy take bytes of a file for pointers."""

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        self.value = np.dtype(str(name))
        if self.value.kind not in _PLAIN_KINDS:
            raise pickle.UnpicklingError(f"it has numpy values of the type {name}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array of numpy whose type is a :class:`_Dtype` while it is read."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, is_fortran, content = state
        super().__setstate__((version, shape, dtype.value, is_fortran, content))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.view(np.ndarray).__reduce_ex__(protocol)


class _History(HistoryBuffer):
    """A HistoryBuffer that takes numbers from a file, and no methods, as mmengine's own does."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_log_history"], state["_count_history"], int(state["max_length"]))  # type: ignore[misc]

    def __reduce__(self) -> Any:
        return HistoryBuffer, (self._log_history, self._count_history, self.max_length)


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return np.frombuffer(content, dtype.value)[0]


def _attribute(owner: Any, name: str) -> Any:
    """Stands for ``getattr``, by which methods are written."""
    if owner == _ONE_CYCLE and name in ("_annealing_cos", "_annealing_linear"):
        return getattr(OneCycleParamScheduler, name)
    if owner is _History:
        return None
    raise pickle.UnpicklingError(f"it names the attribute {name} of {owner}, which could run code")


_ONE_CYCLE = "mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler"

#: What a file may name, and what is built or called for it. All of it is ours or cannot act.
ALLOWED: dict[str, Any] = {
    "argparse.Namespace": SimpleNamespace,
    "builtins.bytearray": bytearray,
    "builtins.bytes": bytes,
    "builtins.complex": complex,
    "builtins.frozenset": frozenset,
    "builtins.getattr": _attribute,
    "builtins.set": set,
    "builtins.slice": slice,
    "_codecs.encode": lambda text, encoding: text.encode("latin1"),
    "collections.Counter": lambda counts=(): Counter(counts),
    "collections.OrderedDict": OrderedDict,
    "mmengine.config.config.ConfigDict": dict,
    "mmengine.logging.history_buffer.HistoryBuffer": _History,
    _ONE_CYCLE: _ONE_CYCLE,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": "numpy.ndarray",
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": torch._utils._rebuild_parameter_with_state,
    "torch._utils._rebuild_tensor": torch._utils._rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
}
for _package in ("numpy.core", "numpy._core"):  # as numpy 1 and numpy 2 write it
    ALLOWED[f"{_package}.multiarray.scalar"] = _scalar
    ALLOWED[f"{_package}.multiarray._reconstruct"] = lambda *_: np.empty(0, np.int8).view(_Array)
