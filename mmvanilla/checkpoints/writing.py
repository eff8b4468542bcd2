"""Write files completely or not at all, one alone or several together."""

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

# The kinds of scratch folders: one whose files are being written, and one whose files are complete.
_WRITING, _COMPLETE = "writing", "complete"


def refuse_existing(path: StrPath, overwrite: bool = False) -> None:
    """Raise the errors of :func:`write_checkpoint` about an existing file before any work is done.

    Raises:
        FileExistsError: The file exists, and ``overwrite`` is False.
        IsADirectoryError: The path is a folder.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already; pass --overwrite to replace it")


def check_writable(
    paths: Iterable[StrPath], overwrite: bool = False, inputs: Iterable[StrPath] = ()
) -> None:
    """Check before any work is done that its outputs can be written.

    The folder of an output need not exist, and is not created, but it must be possible to create
    it.

    Args:
        paths: Paths of the files to write.
        overwrite: Whether existing files may be replaced. Default: False.
        inputs: Files that the work reads. None of them may be an output, not even under another
            name (a link). Addresses such as ``vanillanet://13`` are ignored.

    Raises:
        ValueError: An output is also an input, or is named twice.
        FileExistsError: An output exists, and ``overwrite`` is False.
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
    """Write a checkpoint completely, or leave ``path`` unchanged.

    Args:
        checkpoint: Content to save with ``torch.save``.
        path: Path of the file. Its folder is created if it does not exist.
        overwrite: Whether to replace an existing file. Default: False.

    Raises:
        FileExistsError: The file exists, and ``overwrite`` is False.
        IsADirectoryError: The path is a folder.
    """
    write_whole(lambda file: torch.save(checkpoint, file), path, overwrite)


def write_text(text: str, path: StrPath, overwrite: bool = False) -> None:
    """Write a text in UTF-8, in the same way as :func:`write_checkpoint`."""
    write_whole(lambda file: file.write(text.encode()), path, overwrite)


def write_whole(write: Callable[[IO[bytes]], Any], path: StrPath, overwrite: bool) -> None:
    """Write any file in the same way as :func:`write_checkpoint`.

    Args:
        write: Function that is called once with the open file.
        path: Path of the file. Its folder is created if it does not exist.
        overwrite: Whether to replace an existing file.
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

    The block writes each file under its own name into a scratch folder, where the files can be read
    back and checked. They appear when the block ends without an exception::

        with appearing_together(["out.pth", "out.py"], inputs=[config]) as (weights, text):
            torch.save(checkpoint, weights)
            text.write_text(cfg.pretty_text)
            verify(weights, text)  # if this raises an error, no file appears

    If the process is killed at any moment (by ``kill -9``, or a power failure), a new file never
    stands beside an old one. Since two renames are not one atomic step, the order is this: the new
    files are written and synced; one rename of their folder marks them as complete; all old files
    are removed; the new files are moved to their places. A process that dies before the rename
    leaves the old files. A process that dies after it may leave files missing, but never mixed, and
    :func:`finish_interrupted` moves the others on the next run of any tool that writes there.

    Args:
        paths: Paths of the files, all in one folder, which is created if it does not exist.
        overwrite: Whether to replace existing files. Default: False.
        inputs: Files that the work reads, as in :func:`check_writable`, which is called first.

    Yields:
        The paths at which to write the files, in the order of ``paths``.

    Raises:
        ValueError: The files lie in several folders, or :func:`check_writable` refuses them.
        RuntimeError: The block did not write one of the files.
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
                raise RuntimeError(f"{path.name} was not written, so none of the files appears")
            _sync(path)
        for extra in set(folder.iterdir()) - set(aside):  # such as __pycache__ of a config
            _remove(extra)
        _sync(folder)
        for target in targets:
            refuse_existing(target, overwrite)  # another process may have written it
        complete = folder.with_name(folder.name.replace(f".{_WRITING}-", f".{_COMPLETE}-", 1))
        folder.rename(complete)
        _sync(parent)
        _move_in(complete)


def finish_interrupted(parent: StrPath) -> list[Path]:
    """Move the files to their places that a killed :func:`appearing_together` had completed.

    Returns:
        The files that appeared.
    """
    appeared: list[Path] = []
    for folder in abandoned(Path(parent).expanduser(), _COMPLETE):
        appeared += _move_in(folder)
    return appeared


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of the disk name the file, which the error of a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except RuntimeError as error:
        # torch's archive writer raises errors of its own.
        if "PytorchStreamWriter" not in str(error):
            raise
        raise OSError(errno.EIO, "writing failed, perhaps on a full disk", str(path)) from error


def _move_in(folder: Path) -> list[Path]:
    """Replace files by those of the same name in ``folder``; may be repeated at any point."""
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
    """Flush a file, or the entries of a folder, to the disk, if the system supports it."""
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
