"""What every tool says when something goes wrong, and what it leaves when it is stopped."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from mmvanilla.utils import cli
from tests.toy_training import config_text

ROOT = Path(__file__).resolve().parents[2]
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


def run(monkeypatch, capsys, command):
    monkeypatch.setattr(sys, "argv", ["tool"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            cli.run(ArgumentParser(), command)
    finally:
        signal.signal(signal.SIGTERM, before)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return caught.value.code, error


def test_a_config_that_calls_exit_does_not_end_well(monkeypatch, capsys):
    code, error = run(monkeypatch, capsys, lambda args: sys.exit(0))
    assert code == 1 and "sys.exit(0)" in error


@pytest.fixture
def _ctrl_c_arrives():
    """A shell starts what runs in its background with Ctrl-C ignored: these tests, maybe."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_arrives")
def test_sigterm_and_ctrl_c_clean_up(monkeypatch, capsys, tmp_path):
    def work(number):
        try:
            (tmp_path / "half").write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            (tmp_path / "half").unlink()

    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        code, error = run(monkeypatch, capsys, lambda args, number=number: work(number))
        assert code == status and "removed" in error
        assert not (tmp_path / "half").exists()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="has no timer")
def test_sigterm_is_not_lost_in_code_that_swallows_everything(monkeypatch, capsys):
    cleaned = []

    def swallow(args):
        with contextlib.suppress(BaseException):  # as a bare `except:` does
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            time.sleep(30)
        finally:
            time.sleep(2 * cli._RETRY)  # a slow clean-up is not disturbed
            cleaned.append(True)

    begin = time.monotonic()
    code, _ = run(monkeypatch, capsys, swallow)
    assert code == 143 and cleaned == [True]
    assert time.monotonic() - begin < 10
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_sigterm_is_known_when_a_library_makes_another_error_of_it(monkeypatch, capsys):
    def convert(args):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            raise SyntaxError("cannot format")  # noqa: B904

    assert run(monkeypatch, capsys, convert)[0] == 143


def _processes_of(group):
    """The living processes of a group, by /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for workers in /proc")
def test_a_training_that_gets_sigterm_leaves_no_worker_and_no_half_file(tmp_path):
    text = config_text(tmp_path / "ranks", batch_size=1, epochs=500, norm="BN")
    text = text.replace("num_workers=0", "num_workers=2, persistent_workers=True")
    (tmp_path / "config.py").write_text(text)
    work_dir = tmp_path / "run"
    tool = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "train.py"), str(tmp_path / "config.py")]
        + ["--work-dir", str(work_dir)],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (work_dir / "last_checkpoint").exists() and time.monotonic() < deadline:
        assert tool.poll() is None, tool.stderr.read()
        time.sleep(0.05)
    assert len(_processes_of(tool.pid)) > 1
    tool.send_signal(signal.SIGTERM)
    error = tool.communicate(timeout=60)[1]
    assert tool.returncode == 143, error
    assert "error: stopped by SIGTERM" in error, error
    while _processes_of(tool.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _processes_of(tool.pid) == []
    assert not [path.name for path in work_dir.iterdir() if path.name.startswith(".")]


def test_a_forked_worker_does_not_clean_up_for_its_parent():
    script = textwrap.dedent("""
        import os, signal, sys, time
        from argparse import ArgumentParser
        from mmvanilla.utils import cli

        def work(args):
            try:
                pid = os.fork()
                if pid == 0:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(10)
                print(os.waitpid(pid, 0)[1] >> 8)
            finally:
                print("clean")

        cli.run(ArgumentParser(), work)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["143", "clean"]
