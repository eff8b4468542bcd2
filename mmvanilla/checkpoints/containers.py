"""Read the two formats of ``torch.save``: a zip archive and, before torch 1.6, a row of pickles.

torch's own reader is not used, since it does not verify the checksums of an archive and, before
torch 2.10, does not compare the size of a storage with the size in the pickle.
"""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np
import torch

from mmvanilla.checkpoints.deferred import StorageRef, require
from mmvanilla.checkpoints.unpickling import PlainUnpickler, finish

MapLocation = str | torch.device | Callable[..., Any] | Mapping[str, str] | None

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_CHUNK = 1 << 22  # bytes


class DamagedFileError(Exception):
    """The file is not in the state in which it was written."""


class DeviceError(Exception):
    """The weights cannot be moved to the requested device."""


def read_container(file: IO[bytes], map_location: MapLocation) -> Any:
    """Read a file in either format.

    Args:
        file: An open file, which is read from its beginning.
        map_location: Device of the tensors, as in ``torch.load``; None: the CPU.

    Raises:
        pickle.UnpicklingError: The file holds more than plain values.
        DamagedFileError: The file is truncated, or its checksums are wrong. The legacy format has
            no checksums: there only the length is checked.
        DeviceError: The weights cannot be moved to the device.
    """
    magic = file.read(len(_ZIP_MAGIC))
    if not magic:
        raise DamagedFileError("it is empty")
    file_size = file.seek(0, os.SEEK_END)
    file.seek(0)
    read = _read_zip if magic == _ZIP_MAGIC else _read_legacy
    return read(file, file_size, map_location)


def _read_zip(file: IO[bytes], file_size: int, map_location: MapLocation) -> Any:
    with zipfile.ZipFile(file) as archive:
        records = {info.filename: info for info in archive.infolist()}
        require(len(records) == len(archive.infolist()), "two parts of one name")
        plain = all(info.compress_type == zipfile.ZIP_STORED for info in records.values())
        require(plain, "compressed parts")
        # With overlapping parts a small file could claim much memory.
        if sum(info.file_size for info in records.values()) > file_size:
            raise DamagedFileError("its parts are larger than the file")
        pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise DamagedFileError("it is a zip archive without data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in records:
            raise pickle.UnpicklingError("it is a TorchScript program")
        order = f"{root}byteorder"
        if order in records and archive.read(order).decode() != sys.byteorder:
            raise DamagedFileError(f"it was saved on a machine that is not {sys.byteorder}-endian")
        with archive.open(pickles[0]) as stream:
            unpickler = PlainUnpickler(stream)
            value = unpickler.load()
            stream.read()  # the checksum is verified at the end of a part
        needed = {f"{root}data/{ref.key}": ref for ref in unpickler.storages}
        for name, info in records.items():
            ref = needed.pop(name, None)
            with archive.open(info) as stream:
                if ref is None:
                    while stream.read(_CHUNK):
                        pass
                    continue
                if info.file_size != ref.num_bytes:
                    raise DamagedFileError(f"its part {name} has the wrong size")
                storage = _read_storage(stream, ref.num_bytes)
                require(stream.read(1) == b"", "a part that is too long")
                ref.content = _place(storage, ref.location, map_location)
        if needed:
            raise DamagedFileError(f"its part {min(needed)} is missing")
    return finish(value)


def _read_legacy(file: IO[bytes], file_size: int, map_location: MapLocation) -> Any:
    if file.read(1) != pickle.PROTO:
        raise DamagedFileError("it has neither of the formats of torch.save")
    file.seek(0)
    if PlainUnpickler(file).load() != _LEGACY_MAGIC:
        raise DamagedFileError("it is a pickle that torch.save did not write")
    if PlainUnpickler(file).load() != _LEGACY_PROTOCOL:
        raise DamagedFileError("an unknown version of torch.save wrote it")
    system = PlainUnpickler(file).load()
    require(isinstance(system, dict) and system.get("little_endian") is True, "a byte order")
    unpickler = PlainUnpickler(file)
    value = unpickler.load()
    keys = PlainUnpickler(file).load()
    require(isinstance(keys, list), "a list of storages")
    by_key: dict[str, list[StorageRef]] = {}
    for ref in unpickler.storages:
        by_key.setdefault(ref.key, []).append(ref)
    for key in keys:
        refs = by_key.pop(str(key), None)
        if refs is None:
            raise DamagedFileError("its list of storages has one that is not used")
        first = refs[0]
        size = int.from_bytes(file.read(8), "little")
        left = file_size - file.tell()
        same = all((ref.numel, ref.dtype) == (first.numel, first.dtype) for ref in refs)
        if not same or size != first.numel or first.num_bytes > left:
            raise DamagedFileError("one of its storages has the wrong size")
        storage = _place(_read_storage(file, first.num_bytes), first.location, map_location)
        for ref in refs:
            ref.content = storage
    if by_key:
        raise DamagedFileError(f"{len(by_key)} storages are missing at its end")
    return finish(value)


def _read_storage(stream: IO[bytes], num_bytes: int) -> torch.UntypedStorage:
    buffer = torch.empty(num_bytes, dtype=torch.uint8)
    if num_bytes:
        view: Any = buffer.numpy()
        position = 0
        while position < num_bytes:
            chunk = stream.read(min(_CHUNK, num_bytes - position))
            if not chunk:
                raise DamagedFileError("it ends in the middle of its weights")
            view[position : position + len(chunk)] = np.frombuffer(chunk, np.uint8)
            position += len(chunk)
    return buffer.untyped_storage()


def _place(
    storage: torch.UntypedStorage, location: str, map_location: MapLocation
) -> torch.UntypedStorage:
    """Move a storage to its device, as ``torch.load`` does."""
    if callable(map_location):
        placed = map_location(storage, location)
        return storage if placed is None else placed
    target: Any = map_location
    if isinstance(map_location, Mapping):
        target = map_location.get(location, "cpu")
    try:
        device = torch.device("cpu" if target is None else target)
        if device.type == "cpu":
            return storage
        whole = torch.empty(0, dtype=torch.uint8).set_(storage)
        return whole.to(device).untyped_storage()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise DeviceError(str(error).splitlines()[0]) from error
