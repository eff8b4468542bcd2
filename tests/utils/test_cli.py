"""What every tool says when something goes wrong, and how it ends."""

import errno
import multiprocessing
import signal
import subprocess
import sys
import time
import zipfile
from argparse import ArgumentParser, Namespace

import pytest

from mmvanilla.utils import cli

ARGS = Namespace(config="model.py", checkpoint="weights.pth", images=["a.png"], size=[2, 3], x=None)


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ["No space left", "model.py"]),
        (OSError(errno.ENOSPC, "No space left", "out.pth"), ["out.pth: No space left"]),
        (MemoryError(), ["not enough memory", "weights.pth", "smaller batch"]),
        (RuntimeError("CUDA out of memory. Tried"), ["CUDA", "weights.pth", "smaller batch"]),
        (zipfile.BadZipFile("File is not a zip file"), ["BadZipFile", "weights.pth", "--debug"]),
        (KeyError("epoch"), ["KeyError: 'epoch'", "model.py", "--debug"]),
        (ValueError("two\nlines"), ["two lines (with model.py, weights.pth)"]),
    ],
)
def test_one_line_names_a_file(error, parts):
    message = cli.explain(error, ARGS)
    assert "\n" not in message
    for part in parts:
        assert part in message
    # A message that names its file is left alone.
    error = ValueError("/somewhere/weights.pth is truncated; fetch it again")
    assert cli.explain(error, ARGS) == str(error)


def test_forked_processes_end_at_once_as_without_our_tools():
    """A worker of a pool that waits for a lock would never see an exception."""
    with cli._stopped_by_signals(), cli._stopped_by_signals():
        for _ in range(5):
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            child.start()
            child.terminate()  # while it forks
            child.join(30)
            assert child.exitcode == -signal.SIGTERM
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_table_shows_texts_as_they_are(capsys):
    cli.show_table("t", ["a"], [["car[parked], :car:, [/n]"]])
    assert "car[parked], :car:, [/n]" in capsys.readouterr().out


def test_an_error_is_one_line_and_debug_shows_where(capsys):
    def fail(args: Namespace) -> None:
        raise ValueError("wrong")

    assert cli.run(ArgumentParser, lambda args: None, []) == 0
    assert cli.run(ArgumentParser, fail, []) == 1
    assert capsys.readouterr().err == "error: wrong\n"
    assert cli.run(ArgumentParser, fail, ["--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


SCRIPT = """
import os, signal, sys, time
from argparse import ArgumentParser
from mmvanilla.utils import cli
def work(args):
    try:
        os.kill(os.getpid(), {number})
    finally:
        {then}
before = signal.getsignal({number})
status = cli.run(ArgumentParser, work, [])
assert signal.getsignal({number}) is before
sys.exit(status)
"""
CLEAN, AGAIN = "print('cleaned')", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"


@pytest.mark.parametrize(
    ("number", "then", "status"),
    [
        (signal.SIGINT, CLEAN, 130),
        (signal.SIGTERM, CLEAN, 143),
        (signal.SIGTERM, AGAIN, -signal.SIGTERM),  # a second one ends the process at once
    ],
)
def test_a_signal_ends_the_work_as_an_exception_does(number, then, status):
    code = SCRIPT.format(number=int(number), then=then)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    if then == CLEAN:
        assert done.stdout == "cleaned\n"
        assert done.stderr.splitlines()[-1] == "error: stopped before the end"


def test_malformed_options_are_an_error_of_the_command_line(capsys):
    parser = ArgumentParser()
    cli.add_cfg_options(parser)
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: parser, lambda args: None, ["--cfg-options", "a"])
    assert stop.value.code == 2
    assert "give key=value" in capsys.readouterr().err
