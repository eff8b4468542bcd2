"""End a tool on Ctrl-C or SIGTERM: the same clean-up runs, and no worker or thread complains.

A training is stopped in the middle of something: its main process may be taking a batch from a data
worker, whose thread then finds its connection reset and would print a traceback.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

#: What a tool says, and its exit status (as a shell has it), by the signal that stopped it.
ENDINGS = {
    signal.SIGTERM: ("stopped by SIGTERM; unfinished files were removed", 128 + signal.SIGTERM),
    signal.SIGINT: ("interrupted; unfinished files were removed", 128 + signal.SIGINT),
}
#: How long a swallowed signal is waited for, in seconds.
RETRY = 0.5
#: How long destructors and workers of a stopped tool may take before it ends without them, in
#: seconds.
PATIENCE = 20.0

# One byte that forked processes share: the number of the signal that stops the tool, or 0.
_received = mmap.mmap(-1, 1)


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, as KeyboardInterrupt is on Ctrl-C, so that the same clean-up runs."""


def treat_signals() -> None:
    """Raise :class:`Terminated` on SIGTERM, and print no other errors once a signal came.

    Ctrl-C raises KeyboardInterrupt as ever; where it is ignored, as in the background of a shell,
    it stays ignored. Forked processes inherit all of this, but exit at once on SIGTERM.
    """
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            begin(number)
            raise_for(number)
        elif number == signal.SIGTERM:  # in a forked worker there is nothing to clean up
            os._exit(ENDINGS[signal.SIGTERM][1])
        raise KeyboardInterrupt

    def begin(number: int) -> None:
        _received[0] = number
        # The second one ends the process at once, in case the clean-up hangs.
        signal.signal(number, signal.SIG_DFL)
        if hasattr(signal, "SIGCHLD"):
            # If the workers got the signal too, torch would report that in the midst of a clean-up.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, again)
            signal.setitimer(signal.ITIMER_REAL, RETRY, RETRY)

    def again(number: int, frame: FrameType | None) -> None:
        # A destructor or a bare `except:` in a library may swallow the exception, so it is raised
        # again, but not while it is being handled: then the clean-up is running.
        if os.getpid() == owner and not _comes_from_signal(sys.exc_info()[1]):
            raise_for(_received[0])

    def raise_for(number: int) -> NoReturn:
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    _received[0] = 0
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
    # Errors of the main thread, of other threads, and of destructors.
    sys.excepthook = _unless_stopping(sys.excepthook)
    threading.excepthook = _unless_stopping(threading.excepthook)
    sys.unraisablehook = _unless_stopping(sys.unraisablehook)


def _unless_stopping(report: Callable[..., Any]) -> Callable[..., Any]:
    def report_unless_stopping(*args: Any) -> None:
        if not _received[0]:
            report(*args)

    return report_unless_stopping


def _comes_from_signal(error: BaseException | None) -> bool:
    """Tell whether an exception is a signal's, or was raised by a library because of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def ending(error: BaseException) -> tuple[str, int] | None:
    """Return what a tool says that a signal stopped, and its exit status; None without a signal.

    A library may make any error of a signal, also because its processes got the same one.

    Args:
        error: The exception that ended the tool.
    """
    number = _received[0] or (signal.SIGINT if isinstance(error, KeyboardInterrupt) else 0)
    return ENDINGS.get(signal.Signals(number)) if number else None


def stop_retrying() -> None:
    """End the timer that raises the exception of a signal again; call this while it is handled.

    What follows is left to destructors. A signal in the midst of a queue's bookkeeping leaves its
    lock taken, and the destructor of a data loader would wait for that lock for ever. So a tool
    that was stopped ends after :data:`PATIENCE` seconds in any case.
    """
    if not hasattr(signal, "setitimer"):
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    if _received[0]:
        signal.signal(signal.SIGALRM, _end_at_once)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(Exception):  # whatever it is, the tool is at its end
        for child in multiprocessing.active_children():
            child.kill()
    message, status = ENDINGS[signal.Signals(_received[0])]
    with contextlib.suppress(OSError, ValueError):
        print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(status)


def end_workers() -> None:
    """End the data workers of a tool that was stopped; call this after its exception was handled.

    Until then the exception holds what has the workers. What they have to say comes before the last
    line of the tool in this way, also if they are no forks that know that it stops.
    """
    with contextlib.suppress(Exception):  # whatever it is, the tool is at its end
        gc.collect()
