"""The part that all tools share: parse the command line, run, and report an error in one line."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from argparse import ArgumentError, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import DictAction
from rich.console import Console
from rich.table import Table

# What the user can mend: printed without the type of the exception.
_EXPECTED = (ValueError, TypeError, RuntimeError, OSError, ImportError, MemoryError)
_before: dict[int, Any] = {}  # the handlers from before, while a tool runs


class _Stopped(KeyboardInterrupt):
    """A signal asked the tool to end; its first argument is the number of the signal."""


def run(
    build_parser: Callable[[], ArgumentParser],
    command: Callable[[Namespace], object],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, run ``command`` with it, and return the exit status.

    An exception becomes one line on stderr and the status 1; with ``--debug``, which this adds, its
    traceback comes first. Ctrl-C (130) and SIGTERM (143) end the work as an exception does; a
    second one ends the process at once.
    """
    parser = build_parser()
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    try:
        with _stopped_by_signals():
            command(args)
            sys.stdout.flush()
        return 0
    except KeyboardInterrupt as stopped:
        print("error: stopped before the end", file=sys.stderr)
        return 128 + (stopped.args[0] if isinstance(stopped, _Stopped) else signal.SIGINT)
    except BrokenPipeError:  # the reader of a pipe, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: {explain(error, args)}", file=sys.stderr)
        return 1


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Raise an exception at the first SIGINT or SIGTERM; leave the second one to the system."""
    # Python handles signals in the main thread only; a tool inside of another is stopped by that.
    if threading.current_thread() is not threading.main_thread() or _before:
        yield
        return

    def stop(number: int, frame: object) -> None:
        for each in _before:
            signal.signal(each, signal.SIG_DFL)
        raise _Stopped(number)

    _before.update((each, signal.signal(each, stop)) for each in (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        _give_back()


def _give_back() -> None:
    for each in list(_before):
        signal.signal(each, _before.pop(each))


def _give_back_in_child() -> None:
    held = list(_before)
    _give_back()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, held)


# Where a worker of a pool waits for a lock, or while it forks, Python would not raise anything.
os.register_at_fork(
    before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _before),
    after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _before),
    after_in_child=_give_back_in_child,
)


def explain(error: BaseException, args: Namespace) -> str:
    """Say in one line what went wrong, and name the files of ``args`` if the error names none."""
    message = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "out of memory" in message:
        message = f"not enough memory ({message}); use a smaller batch or image"
    elif isinstance(error, OSError) and error.strerror and error.filename is not None:
        message = f"{error.filename}: {error.strerror}"
    elif not isinstance(error, _EXPECTED):
        message = f"{type(error).__name__}: {message} (--debug shows where)"
    names = [str(v) for v in vars(args).values() if isinstance(v, str | Path) and Path(v).suffix]
    if not names or any(Path(name).name in message for name in names):
        return message
    return f"{message} (with {', '.join(names)})"


class OptionsAction(DictAction):
    """mmengine's parsing of ``key=value``, with argparse's error for malformed options."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Take the words of the option, as argparse asks for it."""
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError) as error:
            text = f"cannot read {' '.join(values)!r} ({error}); give key=value, key.inner=value"
            raise ArgumentError(self, text) from error


def add_cfg_options(parser: ArgumentParser) -> None:
    """Add ``--cfg-options``, which overrides entries of a config as in OpenMMLab's tools."""
    text = "override entries of the config, as key=value with dots in the key"
    parser.add_argument("--cfg-options", nargs="+", action=OptionsAction, help=text)


def config_parser(description: str | None) -> ArgumentParser:
    """Make a parser of a CONFIG and ``--cfg-options``, to which a tool adds its own arguments."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file, or the name of one that `configs` lists")
    add_cfg_options(parser)
    return parser


def add_runner_options(parser: ArgumentParser) -> None:
    """Add the options that training and testing have in common."""
    parser.add_argument("--work-dir", help="folder for logs and checkpoints")
    launchers, text = ["none", "pytorch", "slurm", "mpi"], "what starts the processes (or none)"
    parser.add_argument("--launcher", choices=launchers, default="none", help=text)


def show_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1
) -> None:
    """Print a table, whose first columns are aligned to the left, and the others to the right."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, emoji=False).print(table)
