"""Writing files whole or not at all, one alone or several together."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from mmvanilla.utils.scratch import abandoned, scratch_folder

StrPath = str | os.PathLike[str]

# Scratch folders of these kinds: one being filled, and one whose files are complete.
_WRITING, _COMPLETE = "writing", "complete"


def refuse_existing(path: StrPath, overwrite: bool = False) -> None:
    """Say early what :func:`write_checkpoint` would say late.

    Raises:
        FileExistsError: The file is there already, and ``overwrite`` is False.
        IsADirectoryError: It is a folder.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already; pass --overwrite to replace it")


def check_writable(
    paths: Iterable[StrPath], overwrite: bool = False, inputs: Iterable[StrPath] = ()
) -> None:
    """Find out before the work whether its outputs can be written.

    The folder of an output is not made here, but what would stop it from being made is found.

    Args:
        paths: The files to be written.
        overwrite: Existing files may be replaced. Default: False.
        inputs: The files that the work reads; none of them may be written, not even by another
            name (a link). Addresses such as ``vanillanet://13`` are passed over.

    Raises:
        ValueError: An output is an input, or named twice.
        FileExistsError: An output is there already, and ``overwrite`` is False.
        IsADirectoryError: An output is a folder.
        NotADirectoryError: A part of an output's path is a file.
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
        finish_interrupted(path.parent)
        refuse_existing(path, overwrite)
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise NotADirectoryError(
                f"{path} cannot be written: {folder} is a file, not a folder; choose another place"
            )
        try:
            with scratch_folder(folder, _WRITING):
                pass
        except OSError as error:
            reason = error.strerror or error
            kind = PermissionError if isinstance(error, PermissionError) else OSError
            raise kind(
                f"{path} cannot be written: no file can be made in {folder} ({reason}); "
                "choose another place or free this one"
            ) from error


def write_checkpoint(checkpoint: dict[str, Any], path: StrPath, overwrite: bool = False) -> None:
    """Write a checkpoint so that ``path`` holds all of it or is left as it was.

    Args:
        checkpoint: What ``torch.save`` takes.
        path: The file. Its folder is made where it is missing.
        overwrite: Replace a file that is there already. Default: False.

    Raises:
        FileExistsError: The file is there already, and ``overwrite`` is False.
        IsADirectoryError: It is a folder.
    """
    write_whole(lambda file: torch.save(checkpoint, file), path, overwrite)


def write_text(text: str, path: StrPath, overwrite: bool = False) -> None:
    """Write a text in UTF-8; otherwise as :func:`write_checkpoint`."""
    write_whole(lambda file: file.write(text.encode()), path, overwrite)


def write_whole(write: Callable[[IO[bytes]], Any], path: StrPath, overwrite: bool) -> None:
    """Write any file as :func:`write_checkpoint` does.

    Args:
        write: Is called once with the open file.
        path: The file. Its folder is made where it is missing.
        overwrite: Replace a file that is there already.
    """
    refuse_existing(path, overwrite)
    path = Path(path).expanduser()
    # In the same folder, since a rename is atomic only within one file system.
    with scratch_folder(path.parent, _WRITING) as folder:
        partial = folder / path.name
        with _naming(path), partial.open("wb") as file:
            write(file)
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)


@contextmanager
def appearing_together(
    paths: Sequence[StrPath], overwrite: bool = False, inputs: Iterable[StrPath] = ()
) -> Iterator[list[Path]]:
    """Let several files of one folder appear together, or none of them.

    The block writes each file aside, under its own name in a scratch folder. There the files can
    be read back and checked. They appear when the block ends without an exception::

        with appearing_together(["out.pth", "out.py"], inputs=[config]) as (weights, text):
            torch.save(checkpoint, weights)
            text.write_text(cfg.pretty_text)
            verify(weights, text)  # nothing has appeared if this raises

    What is guaranteed when the process is killed (``kill -9``, power) at any moment: a new file
    never stands beside an old one. Two renames cannot be one atomic step, so this is the order:
    the new files are written and synced; one rename of their folder marks them as complete; every
    old file is removed; the new files are moved in. A process that dies before the mark leaves the
    old files. One that dies after it leaves some names missing, never mixed, and
    :func:`finish_interrupted` moves the rest in on the next run of any tool that writes there.

    Args:
        paths: The files, all in one folder, which is made where it is missing.
        overwrite: Replace files that are there already. Default: False.
        inputs: As in :func:`check_writable`, which is asked first.

    Yields:
        Where to write each file, in the order of ``paths``.

    Raises:
        ValueError: The files lie in several folders, or :func:`check_writable` refuses them.
        RuntimeError: The block has not written one of the files.
    """
    targets = [Path(path).expanduser() for path in paths]
    parent = targets[0].parent
    if any(_resolved(target.parent) != _resolved(parent) for target in targets):
        raise ValueError(f"files that appear together must lie in one folder, found {targets}")
    check_writable(targets, overwrite, inputs)
    with scratch_folder(parent, _WRITING) as folder:
        aside = [folder / target.name for target in targets]
        with _naming(parent):
            yield aside
        for path in aside:
            if not path.is_file():
                raise RuntimeError(f"{path.name} was not written, so that nothing appears")
            _sync(path)
        for extra in set(folder.iterdir()) - set(aside):  # as __pycache__ of a config read back
            _remove(extra)
        _sync(folder)
        for target in targets:
            refuse_existing(target, overwrite)  # it may have come meanwhile
        complete = folder.with_name(folder.name.replace(f".{_WRITING}-", f".{_COMPLETE}-", 1))
        folder.rename(complete)
        _sync(parent)
        _move_in(complete)


def finish_interrupted(parent: StrPath) -> list[Path]:
    """Move in what a killed :func:`appearing_together` had written completely.

    Returns:
        The files that appeared.
    """
    appeared: list[Path] = []
    for folder in abandoned(Path(parent).expanduser(), _COMPLETE):
        appeared += _move_in(folder)
    return appeared


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of the disk name what could not be written: a full one names nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except RuntimeError as error:
        # torch's writer of archives has errors of its own.
        if "PytorchStreamWriter" not in str(error):
            raise
        raise OSError(errno.EIO, "writing failed, perhaps on a full disk", str(path)) from error


def _move_in(folder: Path) -> list[Path]:
    """Replace files by their namesakes in ``folder``; safe to repeat from any point."""
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        (folder.parent / name).unlink(missing_ok=True)
    _sync(folder.parent)
    for name in names:
        (folder / name).replace(folder.parent / name)
    _sync(folder.parent)
    folder.rmdir()
    return [folder.parent / name for name in names]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            _remove(child)
        path.rmdir()
    else:
        path.unlink()


def _sync(path: Path) -> None:
    """Have a file or the names in a folder on the disk, where the system can do that."""
    if path.is_dir() and sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY if sys.platform != "win32" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _resolved(path: Path) -> Path:
    return path.expanduser().resolve()


def _is_same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return os.path.samefile(path, other)
    return _resolved(path) == _resolved(other)
