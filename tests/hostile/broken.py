"""Makers of files that a tool must refuse: checkpoints and configs, each broken in one way."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch

from tests.hostile.rule import CANARY


class _Runs:
    """Pickled, it is a call of ``os.system`` that makes the canary."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}",)


class _Evaluates:
    """Pickled, it is a call of ``eval``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({CANARY!r}, 'w').close()",)


def _saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _change_tensor(good: bytes, key: str, change: Callable[[torch.Tensor], None]) -> bytes:
    content = torch.load(io.BytesIO(good), weights_only=False)
    change(content["state_dict"][key])
    return _saved(content)


def _flip(good: bytes) -> bytes:
    """A byte in the middle of the largest tensor is another one."""
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        header = good[largest.header_offset : largest.header_offset + 30]
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = largest.header_offset + 30 + name_length + extra_length
    place = start + largest.file_size // 2
    return good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :]


def _with_entry(good: bytes, name: str, content: bytes) -> bytes:
    """The same zip with one entry replaced."""
    source = zipfile.ZipFile(io.BytesIO(good))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for entry in source.infolist():
            replaced = entry.filename.rpartition("/")[2] == name
            target.writestr(entry.filename, content if replaced else source.read(entry))
    return buffer.getvalue()


def _pointer_bomb() -> bytes:
    """An object dtype whose bytes are taken for a pointer: reading it crashed the interpreter."""
    return (
        b"\x80\x02cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00O8"
        b"\x89\x88tR(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"c_codecs\nencode\n(X\x08\x00\x00\x00AAAAAAAAX\x06\x00\x00\x00latin1tRtR."
    )


def _script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), buffer)
    return buffer.getvalue()


def _without_weights(good: bytes) -> bytes:
    content = torch.load(io.BytesIO(good), weights_only=False)
    content["state_dict"] = {}
    return _saved(content)


def _other_weights(good: bytes) -> bytes:
    content = torch.load(io.BytesIO(good), weights_only=False)
    weights = content["state_dict"]
    content["state_dict"] = {
        key: value.repeat_interleave(2, 0) if value.dim() else value
        for key, value in weights.items()
    }
    return _saved(content)


def _foreign(good: bytes) -> bytes:
    return _saved({"state_dict": {"fc.weight": torch.ones(2, 2)}})


def _nan(tensor: torch.Tensor) -> None:
    tensor.view(-1)[0] = float("nan")


def _negative(tensor: torch.Tensor) -> None:
    tensor.view(-1)[0] = -1.0


#: How a checkpoint can be broken: name → from the bytes of a good one to those of the broken one.
CHECKPOINTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "one byte": lambda good: b"\x80",
    "text": lambda good: b"this is no checkpoint\n" * 20,
    "a web page": lambda good: b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "gzip": gzip.compress,
    "first half": lambda good: good[: len(good) // 2],
    "last half": lambda good: good[len(good) // 2 :],
    "without its last byte": lambda good: good[:-1],
    "a flipped byte": _flip,
    "a flipped byte in the directory": lambda good: good[:-40] + b"\xff" + good[-39:],
    "a zip without a pickle": lambda good: _with_entry(good, "data.pkl", b""),
    "a pickle that runs a command": lambda good: pickle.dumps({"state_dict": _Runs()}),
    "a pickle that evaluates": lambda good: pickle.dumps({"state_dict": _Evaluates()}, protocol=2),
    "a zip that runs a command": lambda good: _with_entry(
        good, "data.pkl", pickle.dumps({"state_dict": _Runs()}, protocol=2)
    ),
    "a zip that evaluates": lambda good: _with_entry(
        good, "data.pkl", pickle.dumps({"meta": _Evaluates(), "state_dict": {}}, protocol=2)
    ),
    "a forged pointer": lambda good: _with_entry(good, "data.pkl", _pointer_bomb()),
    "a forged pointer in a bare pickle": lambda good: _pointer_bomb(),
    "a program": lambda good: _script(),
    "a list": lambda good: _saved([1, 2, 3]),
    "a tensor": lambda good: _saved(torch.ones(3)),
    "no weights": _without_weights,
    "weights of another network": _foreign,
    "weights of another size": _other_weights,
    "text for weights": lambda good: _saved({"state_dict": {"backbone.stem.conv.weight": "text"}}),
    "a number for a state dict": lambda good: _saved({"state_dict": 5}),
    "NaN in a weight": lambda good: _change_tensor(
        good, "backbone.stem.conv.first.conv.weight", _nan
    ),
    "a negative variance": lambda good: _change_tensor(
        good, "backbone.stem.conv.first.norm.running_var", _negative
    ),
}

#: How a config can be broken: name → its text, in which {good} is the path of a good config.
CONFIGS: dict[str, str | bytes] = {
    "empty": "",
    "text": "this is no config\n",
    "a syntax error": "model = dict(type='ImageClassifier'\n",
    "bytes": b"\xff\xfe\x00\x01\x80",
    "without a model": "default_scope = 'mmpretrain'\nlr = 1\n",
    "its own base": "_base_ = ['broken.py']\n",
    "a base that is missing": "_base_ = ['nowhere.py']\n",
    "an address as its base": "_base_ = ['http://127.0.0.1:9/config.py']\n",
    "it leaves": "import sys\nsys.exit(0)\n",
    "it raises": "raise ValueError('from the config')\n",
    "it divides by zero": "batch = 1 / 0\n",
    "an unknown model": "_base_ = [{good!r}]\nmodel = dict(type='NoSuchClassifier')\n",
    "an unknown backbone": (
        "_base_ = [{good!r}]\nmodel = dict(backbone=dict(_delete_=True, type='NoSuchNet'))\n"
    ),
    "an unknown argument": "_base_ = [{good!r}]\nmodel = dict(backbone=dict(depth=50))\n",
    "an unknown variant": "_base_ = [{good!r}]\nmodel = dict(backbone=dict(arch='14'))\n",
    "a model that is no dict": "_base_ = [{good!r}]\nmodel = dict(_delete_=True)\nmodel = 5\n",
    "an unknown toolbox": "_base_ = [{good!r}]\ndefault_scope = 'mmnowhere'\n",
    "an import that fails": (
        "_base_ = [{good!r}]\n"
        "custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)\n"
    ),
}
