"""The part that all tools share: parse the command line, run, and report an error in one line."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from argparse import ArgumentError, ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import DictAction

from mmvanilla.utils import stopping
from mmvanilla.utils.known_errors import explain_known

# User errors: printed without the exception type.
_EXPECTED = (ValueError, TypeError, RuntimeError, OSError, ImportError, MemoryError)
# Errors of these types come from Python or a library, and name neither a file nor a remedy.
_BARE = (UnicodeError, EOFError)
_NAMES_SHOWN = 4

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another place, and run again",
    errno.EFBIG: "choose another place, or allow larger files (ulimit -f)",
    errno.EDQUOT: "free some space or choose another place, and run again",
    errno.EACCES: "change its permissions or choose another place",
    errno.EPERM: "change its permissions or choose another place",
    errno.EROFS: "choose another place",
    errno.ENOENT: "check its name",
    errno.EISDIR: "name a file in it",
    errno.ENOTDIR: "check the folders in its name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "allow more open files (ulimit -n), or use fewer workers",
    errno.ENOMEM: "close other programs, or use a smaller batch or image",
}


def run(parser: ArgumentParser, command: Callable[[Namespace], object]) -> None:
    """Parse the command line, run ``command`` with it, and exit.

    It adds the option ``--debug``. Without that option an exception becomes one line on stderr and
    exit status 1. Ctrl-C exits with status 130, and SIGTERM with 143; unfinished files are removed.

    Args:
        parser: Parser with the tool's own arguments.
        command: Function that does the work; its return value is ignored.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    # `mmvanilla TOOL` tells the tool what the user typed (mmvanilla/__main__.py).
    parser.prog = getattr(sys.modules["__main__"], "COMMAND", parser.prog)
    args = parser.parse_args()
    stopping.treat_signals()
    message, status, was_stopped = _run(command, args)
    if was_stopped:
        stopping.end_workers()
    if message:
        print(f"error: {message}", file=sys.stderr)
        sys.exit(status)


def _run(command: Callable[[Namespace], object], args: Namespace) -> tuple[str, int, bool]:
    """Run ``command``.

    Returns:
        What to say, which is nothing if it succeeded; the exit status; whether a signal stopped it.
    """
    try:
        command(args)
    except BaseException as error:  # every tool ends here when something fails
        stopping.stop_retrying()
        if args.debug and not isinstance(error, KeyboardInterrupt):
            traceback.print_exc()
        stopped = stopping.ending(error)
        if stopped is not None:
            return *stopped, True
        if isinstance(error, SystemExit):  # only a config does that, since it is a Python program
            message = f"a config, or a module that it imports, called sys.exit({error.code!r})"
            return f"{message}{_inputs(args)}; remove that call", 1, False
        return explain(error, args), 1, False
    stopping.stop_retrying()
    return "", 0, False


def explain(error: BaseException, args: Namespace) -> str:
    """Say in one line what went wrong, with which file, and what to do.

    Args:
        error: The exception that ended the tool.
        args: The parsed command line; its files are named if the error names none of them.
    """
    message = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "out of memory" in message:
        reason = f"not enough memory ({message or 'no details were given'})"
        return f"{reason}{_inputs(args)}; close other programs, or use a smaller batch or image"
    if isinstance(error, OSError) and error.errno is not None:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        where = " and ".join(names) or "a file"
        context = "" if names else _inputs(args)
        remedy = _REMEDIES.get(error.errno, "check that it can be read and written there")
        return f"{where}: {error.strerror or message}{context}; {remedy}"
    known = explain_known(message)
    if known is not None:
        return f"{known}{_inputs(args, str(known))}"
    is_foreseen = isinstance(error, _EXPECTED) and not isinstance(error, _BARE)
    named = f"{message or 'no message'}{_inputs(args, message)}"
    if is_foreseen:
        return named
    return (
        f"{type(error).__name__}: {named}; this error is not expected: check these files, or run "
        "again with --debug and report what it prints"
    )


def _inputs(args: Namespace, message: str = "") -> str:
    """Name the files on the command line, unless the message already names one of them."""
    names = list(dict.fromkeys(_files(vars(args).values())))
    if not names or any(name in message or Path(name).name in message for name in names):
        return ""
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return f" (with {', '.join(names[:_NAMES_SHOWN])}{more})"


def _files(values: Any) -> Iterator[str]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _files(value)
        elif isinstance(value, str | Path) and str(value):
            text = str(value)
            if "://" in text or Path(text).suffix or os.path.lexists(text):
                yield text


class OptionsAction(DictAction):
    """mmengine's parsing of ``key=value``, with argparse's error for malformed options."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Take the words of the option, as argparse asks for it."""
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError) as error:
            raise ArgumentError(
                self, f"cannot read {' '.join(values)!r} ({error}); give key=value, key.inner=value"
            ) from error


def add_page(parser: ArgumentParser) -> None:
    """Add the option ``--write`` of the tools that print a table for a page of the documentation.

    It becomes a list of the page's path and the table's name, or None.
    """
    parser.add_argument(
        "--write",
        nargs=2,
        metavar=("PAGE", "TABLE"),
        help="write the table into this page, too, where two marks with its name stand",
    )


def add_cfg_options(parser: ArgumentParser) -> None:
    """Add ``--cfg-options``, which overrides entries of a config as in OpenMMLab's tools."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=OptionsAction,
        help="override entries of the config, as key=value with dots in the key",
    )


def add_runner_options(parser: ArgumentParser) -> None:
    """Add the options that training and testing have in common."""
    add_cfg_options(parser)
    parser.add_argument("--work-dir", help="folder for logs and checkpoints")
    parser.add_argument(
        "--channels-last",
        action=BooleanOptionalAction,
        help="convolutions in the memory format channels_last (default: as the config says)",
    )
    parser.add_argument(
        "--compile",
        action=BooleanOptionalAction,
        help="compile the model by torch.compile; the first iterations take minutes (default: as "
        "the config says)",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="program that starts the processes (default: none)",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by launcher")
