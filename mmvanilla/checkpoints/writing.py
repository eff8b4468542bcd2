"""Write files whole or not at all, one alone or several together."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

StrPath = str | os.PathLike[str]

#: How the name begins of a folder that a killed process leaves; it may be deleted.
UNFINISHED = ".unfinished-"


def refuse_existing(path: StrPath, overwrite: bool = False) -> None:
    """Raise an error if a path is a folder, or a file that may not be replaced."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{path} exists already; pass --overwrite to replace it")


def check_writable(
    paths: Iterable[StrPath], overwrite: bool = False, inputs: Iterable[StrPath] = ()
) -> None:
    """Check before any work is done that its outputs can be written; nothing is created.

    Args:
        paths: Paths of the files to write. Their folders need not exist.
        overwrite: Whether existing files may be replaced. Default: False.
        inputs: Files that the work reads, none of which may be an output. Addresses such as
            ``vanillanet://13`` are ignored.

    Raises:
        ValueError: An output is also an input, or is named twice.
        FileExistsError: An output exists, and ``overwrite`` is False.
        IsADirectoryError: An output is a folder.
        PermissionError: The folder of an output cannot be written to.
    """
    outputs = [Path(path).expanduser() for path in paths]
    sources = [Path(path).expanduser() for path in inputs if "://" not in str(path)]
    for index, path in enumerate(outputs):
        if any(_is_same(path, other) for other in outputs[:index]):
            raise ValueError(f"{path} is named twice as an output; give each output its own name")
        if any(_is_same(path, source) for source in sources):
            raise ValueError(
                f"the output {path} is also an input, which would be lost; choose another name"
            )
        refuse_existing(path, overwrite)
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(
                f"{path} cannot be written: {folder} is not a folder in which you may make files"
            )


def write_checkpoint(checkpoint: dict[str, Any], path: StrPath, overwrite: bool = False) -> None:
    """Write what ``torch.save`` makes of a checkpoint, as :func:`appearing_together` does."""
    content = io.BytesIO()  # since torch.save hides the error of a full disk
    torch.save(checkpoint, content)
    write_whole(content.getbuffer(), path, overwrite)


def write_text(text: str, path: StrPath, overwrite: bool = False) -> None:
    """Write a text in UTF-8, in the same way as :func:`write_checkpoint`."""
    write_whole(text.encode(), path, overwrite)


def write_whole(content: bytes | memoryview, path: StrPath, overwrite: bool = False) -> None:
    """Write any content in the same way."""
    with appearing_together([path], overwrite) as (aside,):
        aside.write_bytes(content)


@contextmanager
def appearing_together(
    paths: Sequence[StrPath], overwrite: bool = False, inputs: Iterable[StrPath] = ()
) -> Iterator[list[Path]]:
    """Let files of one folder appear when all of them are written, each of them whole.

    The block writes each file under its own name into a new folder beside the targets, where the
    files can be read back and checked::

        with appearing_together(["out.py", "out.pth"], inputs=[config]) as (text, weights):
            text.write_text(cfg.pretty_text)
            torch.save(checkpoint, weights)
            verify(weights, text)  # if this raises an error, no file appears

    Then they are put in their places in the given order, each by one step of the file system. A
    process that is killed in this moment can leave the first file new and the last one old, which
    therefore should stand by itself: a checkpoint holds the text of its config. Processes that
    write the same files at once do so one after the other, where the file system has locks.

    Args:
        paths: Paths of the files, all in one folder, which is created if it does not exist.
        overwrite: As in :func:`check_writable`, which is called first.
        inputs: As in :func:`check_writable`.

    Yields:
        The paths at which to write the files, in the order of ``paths``.

    Raises:
        ValueError: The files lie in several folders, or :func:`check_writable` refuses them.
        FileExistsError: Another process has written a file meanwhile, and ``overwrite`` is False.
        RuntimeError: The block did not write one of the files.
    """
    targets = [Path(path).expanduser() for path in paths]
    parent = targets[0].parent
    if any(not _is_same(target.parent, parent) for target in targets):
        raise ValueError(f"files that appear together must lie in one folder, found {targets}")
    check_writable(targets, overwrite, inputs)
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))
    try:
        aside = [folder / target.name for target in targets]
        yield aside
        for path in aside:
            if not path.is_file():
                raise RuntimeError(f"{path.name} was not written, so none of the files appears")
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        # Signals are handled in the main thread alone, so nothing stops this one between two files.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(int).result()  # its thread runs, so leaving this block waits for it
            pool.submit(_put_in_place, aside, targets, overwrite).result()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(aside: list[Path], targets: list[Path], overwrite: bool) -> None:
    descriptor = os.open(targets[0].parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # of a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        for target in targets:
            refuse_existing(target, overwrite)
        for path, target in zip(aside, targets, strict=True):
            path.replace(target)
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return os.path.samefile(path, other)
    return path.resolve() == other.resolve()
