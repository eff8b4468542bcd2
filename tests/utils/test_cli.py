"""What every tool says when something goes wrong."""

import errno
import sys
import zipfile
from argparse import ArgumentParser, Namespace

import pytest

from mmvanilla.utils import cli

ARGS = Namespace(config="model.py", checkpoint="weights.pth", images=["a.png"], size=[2, 3], x=None)


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ["model.py", "free some space"]),
        (OSError(errno.ENOSPC, "No space left", "out.pth"), ["out.pth: No space", "free some"]),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), ["/x: Perm", "permissions"]),
        (FileNotFoundError(errno.ENOENT, "No such file", "y.py"), ["y.py: No such", "its name"]),
        (MemoryError(), ["not enough memory", "weights.pth", "smaller batch"]),
        (RuntimeError("CUDA out of memory. Tried"), ["CUDA", "weights.pth", "smaller batch"]),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            ["UnicodeDecodeError", "model.py", "--debug"],
        ),
        (zipfile.BadZipFile("File is not a zip file"), ["BadZipFile", "weights.pth", "--debug"]),
        (EOFError(), ["EOFError: no message", "model.py", "--debug"]),
        (KeyError("epoch"), ["KeyError: 'epoch'", "a.png", "--debug"]),
        (ValueError("two\nlines"), ["two lines (with model.py, weights.pth, a.png)"]),
    ],
)
def test_one_line_names_a_file_and_a_remedy(error, parts):
    message = cli.explain(error, ARGS)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_message_that_names_its_file_is_left_alone():
    error = ValueError("/somewhere/weights.pth is truncated; fetch it again")
    assert cli.explain(error, ARGS) == str(error)
    assert cli.explain(ValueError("wrong"), Namespace(size=[1])) == "wrong"


def test_a_config_that_calls_exit_does_not_end_well(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tool"])
    monkeypatch.setattr(cli.stopping, "treat_signals", lambda: None)
    with pytest.raises(SystemExit) as stop:
        cli.run(ArgumentParser(), lambda args: sys.exit(0))
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert stop.value.code == 1 and "sys.exit(0)" in error
