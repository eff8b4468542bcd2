"""End a tool on Ctrl-C or SIGTERM: the same clean-up runs, and no worker or thread complains.

A training is stopped in the middle of something: its main process may be taking a batch from a data
worker, whose thread then finds its connection reset and would print a traceback.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

#: Exit statuses, as a shell has them for a process that a signal ended.
TERMINATED_STATUS = 128 + signal.SIGTERM
INTERRUPTED_STATUS = 128 + signal.SIGINT
#: How long a swallowed SIGTERM is waited for, in seconds.
RETRY = 0.5

# One byte that forked processes share: not 0 as soon as the tool is being stopped.
_is_stopping = mmap.mmap(-1, 1)


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, as KeyboardInterrupt is on Ctrl-C, so that the same clean-up runs."""


def treat_signals() -> None:
    """Raise :class:`Terminated` on SIGTERM, and print no other errors once a signal came.

    Ctrl-C raises KeyboardInterrupt as ever; where it is ignored, as in the background of a shell,
    it stays ignored. Forked processes inherit all of this, but exit at once on SIGTERM.
    """
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # in a forked worker there is nothing to clean up
            os._exit(TERMINATED_STATUS)
        begin(number)
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, again)
            signal.setitimer(signal.ITIMER_REAL, RETRY, RETRY)
        raise Terminated

    def again(number: int, frame: FrameType | None) -> None:
        # A destructor or a bare `except:` in a library may swallow the exception, so it is raised
        # again, but not while it is being handled: then the clean-up is running.
        if os.getpid() == owner and not comes_from_sigterm(sys.exc_info()[1]):
            raise Terminated

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:  # a forked worker gets Ctrl-C, too
            begin(number)
        raise KeyboardInterrupt

    def begin(number: int) -> None:
        _is_stopping[0] = 1
        # The second one ends the process at once, in case the clean-up hangs.
        signal.signal(number, signal.SIG_DFL)

    _is_stopping[0] = 0
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    # Errors of the main thread, of other threads, and of destructors.
    sys.excepthook = _unless_stopping(sys.excepthook)
    threading.excepthook = _unless_stopping(threading.excepthook)
    sys.unraisablehook = _unless_stopping(sys.unraisablehook)


def _unless_stopping(report: Callable[..., Any]) -> Callable[..., Any]:
    def report_unless_stopping(*args: Any) -> None:
        if not _is_stopping[0]:
            report(*args)

    return report_unless_stopping


def comes_from_sigterm(error: BaseException | None) -> bool:
    """Tell whether an exception is :class:`Terminated`, or was raised by a library because of it.

    Args:
        error: The exception; None is none.
    """
    while error is not None and not isinstance(error, Terminated):
        error = error.__cause__ or error.__context__
    return error is not None


def stop_retrying() -> None:
    """End the timer that raises :class:`Terminated` again; call this while it is handled."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def end_workers() -> None:
    """End the data workers of a tool that was stopped; call this after its exception was handled.

    Until then the exception holds what has the workers. What they have to say comes before the last
    line of the tool in this way, also if they are no forks that know that it stops.
    """
    with contextlib.suppress(Exception):  # torch reports a worker that the same signal ended
        gc.collect()
