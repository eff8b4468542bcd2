"""Tools that get a signal, each in a fork of its own: python -m tests.utils.stopping_cases FOLDER.

Not in the process of the tests: signals to that one would meet libraries with threads of their own.
Prints a line of JSON: by the name of each case its exit status, what it printed, its seconds, and
whether its half-written file is left.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

from mmvanilla.utils import cli, stopping


def _get(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(30)


def _with_a_half_file(number: int) -> None:
    half = Path("half")
    try:
        half.write_text("half")
        _get(number)
    finally:
        half.unlink()


def sigterm() -> None:
    _with_a_half_file(signal.SIGTERM)


def ctrl_c() -> None:
    _with_a_half_file(signal.SIGINT)


def ctrl_c_is_ignored() -> None:
    # As a shell starts what runs in its background.
    os.kill(os.getpid(), signal.SIGINT)
    print("went on")


def swallowed() -> None:
    with contextlib.suppress(BaseException):  # as a bare `except:` does
        os.kill(os.getpid(), signal.SIGTERM)
    try:
        time.sleep(30)
    finally:
        time.sleep(2 * stopping.RETRY)  # a slow clean-up is not disturbed
        print("cleaned")


def another_error_of_it() -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        raise SyntaxError("cannot format")  # noqa: B904


def everything_complains() -> None:
    """A forked process, a thread and a destructor that fail because the tool is stopped."""
    mine, other = os.pipe()
    if os.fork() == 0:
        os.close(other)
        os.read(mine, 1)
        try:
            raise ConnectionResetError("a worker's connection")
        except ConnectionResetError:
            sys.excepthook(*sys.exc_info())  # as multiprocessing's thread for handles does
        os._exit(0)

    def serve() -> None:
        os.read(mine, 1)
        raise ConnectionResetError("a thread's connection")

    class Broken:
        def __del__(self) -> None:
            raise RuntimeError("a destructor")

    thread = threading.Thread(target=serve)
    thread.start()
    held = Broken()
    try:
        _get(signal.SIGTERM)
    finally:
        os.write(other, b"12")
        os.close(other)
        os.wait()
        thread.join()
        del held
        gc.collect()


def everything_complains_of_its_own() -> None:
    """The same errors without a signal are printed."""
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    if os.fork() == 0:
        try:
            raise ConnectionResetError("a worker's connection")
        except ConnectionResetError:
            sys.excepthook(*sys.exc_info())
        os._exit(0)
    os.wait()


def a_second_signal() -> None:
    try:
        _get(signal.SIGINT)
    finally:
        _get(signal.SIGINT)


def forked_worker() -> None:
    try:
        pid = os.fork()
        if pid == 0:
            _get(signal.SIGTERM)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    finally:
        print("clean")


def a_destructor_hangs() -> None:
    """A lock that the signal left taken, as in the queue of a data loader's worker."""
    stopping.PATIENCE = 1.0
    lock = threading.Lock()
    lock.acquire()

    class Loader:
        def __del__(self) -> None:
            lock.acquire()

    held = [Loader()]
    try:
        _get(signal.SIGTERM)
    finally:
        print(f"cleaned {len(held)}")


CASES: tuple[Callable[[], None], ...] = (
    sigterm,
    ctrl_c,
    ctrl_c_is_ignored,
    swallowed,
    another_error_of_it,
    everything_complains,
    everything_complains_of_its_own,
    a_second_signal,
    forked_worker,
    a_destructor_hangs,
)


def run_case(case: Callable[[], None]) -> dict[str, object]:
    """Run a case as a tool in a fork, and return what came of it."""
    begin = time.monotonic()
    pid = os.fork()
    if pid == 0:
        out = os.open(f"{case.__name__}.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1)
        os.dup2(out, 2)
        ignored = case is ctrl_c_is_ignored
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
        status = 70
        try:
            cli.run(ArgumentParser(), lambda args: case())
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    printed = Path(f"{case.__name__}.txt").read_text()
    seconds = time.monotonic() - begin
    return dict(status=status, printed=printed, seconds=seconds, left=Path("half").exists())


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    sys.argv = ["tool"]
    print(json.dumps({case.__name__: run_case(case) for case in CASES}))
