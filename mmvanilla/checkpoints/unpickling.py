"""Read the pickle of a checkpoint as data.

The reader never looks up or calls a class or function that the file chooses: names have the meaning
that :mod:`mmvanilla.checkpoints.plain_values` gives them. torch's ``weights_only`` is not used,
since it lets the file call numpy's constructors once they are allowed, and cannot read the log
history of mmengine before torch 2.5.
"""

from __future__ import annotations

import argparse
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from typing import IO, Any

from mmvanilla.checkpoints.deferred import Deferred, Forbidden, Named, StorageRef, require
from mmvanilla.checkpoints.plain_values import look_up, storage_dtype

# The opcodes of a pickle of plain values. Left out are, among others, those for instances of old
# classes, registered extensions, and buffers outside of the pickle.
_STEPS = """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG
    LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE
    BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    EMPTY_LIST LIST EMPTY_DICT DICT EMPTY_SET FROZENSET GET BINGET LONG_BINGET PUT BINPUT
    LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL BINPERSID
"""
# The opcodes of the unpickler in C cannot be restricted.
_Unpickler: Any = pickle._Unpickler
_CHUNK = 1 << 20  # bytes


class _Stream:
    """An open file as the unpickler reads it: what is asked for is there in full, or an error.

    A step names the length of its value in up to 8 bytes. A file object would allocate a forged
    length before it finds that the file ends.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.readline = file.readline

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes."""
        content = self._file.read(min(size, _CHUNK))
        while len(content) < size:
            more = self._file.read(min(size - len(content), _CHUNK))
            if not more:
                raise EOFError("it ends in the middle of a value")
            content += more
        return content


class PlainUnpickler(_Unpickler):
    """Reads one pickle as data; :func:`finish` then makes the deferred values.

    Args:
        file: An open file, which is read from its position to the end of the pickle.
    """

    dispatch = {
        code: _Unpickler.dispatch[code]
        for code in (getattr(pickle, name)[0] for name in _STEPS.split())
    }

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(_Stream(file), encoding="utf-8")
        self._known: dict[tuple[str, int], StorageRef] = {}

    def load(self) -> Any:
        """Read the pickle; deferred values are not made yet."""
        try:
            return super().load()
        except KeyError as error:  # an unknown opcode, or a reference to a missing value
            raise pickle.UnpicklingError("it has an opcode torch.save never writes") from error

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up in our table, never in a module."""
        # torch.save writes the names of Python 2.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        return look_up(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> StorageRef:
        """Note a storage that the pickle refers to."""
        require(
            isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage", "a reference"
        )
        _, kind, key, location, numel = pid[:5]
        # Only files from before torch 0.4 refer to views of storages.
        view = pid[5] if len(pid) == 6 and pid[5] is not None else (None, 0, numel)
        require(isinstance(view, tuple) and len(view) == 3, "a view of a storage")
        offset = view[1]
        require(
            isinstance(key, str | int)
            and isinstance(location, str)
            and all(type(number) is int and number >= 0 for number in (numel, offset)),
            "a reference to a storage",
        )
        ref = StorageRef(str(key), storage_dtype(kind), location, numel, offset)
        known = self._known.setdefault((ref.key, offset), ref)
        same = (known.dtype, known.numel) == (ref.dtype, ref.numel)
        require(same, "two sizes or types for one storage")
        return known

    @property
    def storages(self) -> list[StorageRef]:
        """The storages that the pickle refers to."""
        return list(self._known.values())

    def _load_reduce(self) -> None:
        args = self.stack.pop()
        callee = self.stack[-1]
        self.stack[-1] = self._call(callee, args)

    def _load_newobj(self) -> None:
        self._load_reduce()

    @staticmethod
    def _call(callee: Any, args: Any) -> Any:
        require(isinstance(callee, Named) and isinstance(args, tuple), "a call")
        try:
            return callee.build(*args)
        except TypeError as error:  # the wrong number or kind of arguments
            raise pickle.UnpicklingError(
                f"it calls {callee.name} as torch.save never does"
            ) from error

    def _load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Deferred):
            target.set_state(state)
            return
        names = state if isinstance(state, dict) else {}
        require(names is state and all(isinstance(name, str) for name in names), "a state")
        if type(target) is OrderedDict:  # of a state dict: the versions of its modules
            require(set(names) <= {"_metadata"}, "a state of a dict")
        else:
            require(type(target) is argparse.Namespace, "a state")
        vars(target).update(names)

    def _load_bytearray8(self) -> None:
        # Python's own step makes the array before it reads its content.
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def _load_append(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list[Any]) -> None:
        require(type(self.stack[-1]) is list, "a list")
        self.stack[-1].extend(values)

    def _load_setitem(self) -> None:
        value = self.stack.pop()
        self._update([self.stack.pop(), value])

    def _load_setitems(self) -> None:
        self._update(self.pop_mark())

    def _update(self, items: list[Any]) -> None:
        require(isinstance(self.stack[-1], dict) and len(items) % 2 == 0, "a dict")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _load_additems(self) -> None:
        values = self.pop_mark()
        require(type(self.stack[-1]) is set, "a set")
        self.stack[-1].update(values)

    for _name, _method in dict(
        REDUCE=_load_reduce,
        NEWOBJ=_load_newobj,
        BUILD=_load_build,
        BYTEARRAY8=_load_bytearray8,
        APPEND=_load_append,
        APPENDS=_load_appends,
        SETITEM=_load_setitem,
        SETITEMS=_load_setitems,
        ADDITEMS=_load_additems,
    ).items():
        dispatch[getattr(pickle, _name)[0]] = _method


def finish(value: Any) -> Any:
    """Make all deferred values of a pickle; lists and dicts are changed in place.

    A value that the pickle refers to several times becomes one object.
    """
    made: dict[int, tuple[Any, Any]] = {}  # the original stays alive, so its id stays unique

    def walk(value: Any) -> Any:
        if id(value) in made:
            return made[id(value)][1]
        result = value
        made[id(value)] = (value, value)  # ends the recursion in a value that contains itself
        if isinstance(value, Deferred):
            result = value.make(walk)
        elif isinstance(value, Named):
            raise Forbidden(f"GLOBAL {value.name}")
        elif isinstance(value, dict):
            for key in value:
                value[key] = walk(value[key])
            if type(value) is OrderedDict:
                walk(vars(value))
        elif isinstance(value, list):
            value[:] = [walk(item) for item in value]
        elif type(value) is tuple:
            items = [walk(item) for item in value]
            if any(new is not old for new, old in zip(items, value, strict=True)):
                result = tuple(items)
        elif isinstance(value, argparse.Namespace):
            walk(vars(value))
        made[id(value)] = (value, result)
        return result

    return walk(value)
