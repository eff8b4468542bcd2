"""What a tool says and leaves behind when Ctrl-C or SIGTERM stops it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmvanilla.utils import stopping
from tests.helpers import ROOT
from tests.toy_training import config_text

TERMINATED = "error: stopped by SIGTERM; unfinished files were removed\n"
INTERRUPTED = "error: interrupted; unfinished files were removed\n"


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """What came of each tool of stopping_cases.py, by its name."""
    folder = tmp_path_factory.mktemp("cases")
    done = subprocess.run(
        [sys.executable, "-m", "tests.utils.stopping_cases", str(folder)],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("case", "status", "printed"),
    [
        ("sigterm", 143, TERMINATED),
        ("ctrl_c", 130, INTERRUPTED),
        ("ctrl_c_is_ignored", 0, "went on\n"),
        ("another_error_of_it", 143, TERMINATED),
        ("forked_worker", 0, "143\nclean\n"),
        ("everything_complains", 143, TERMINATED),
        ("a_second_signal", -signal.SIGINT, ""),
        ("a_destructor_hangs", 143, f"cleaned 1\n{TERMINATED}"),
    ],
)
def test_one_line_and_the_status(cases, case, status, printed):
    assert (cases[case]["status"], cases[case]["printed"]) == (status, printed)
    assert cases[case]["seconds"] < 20


def test_unfinished_files_are_removed(cases):
    assert not [name for name, case in cases.items() if case["left"]]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="has no timer")
def test_sigterm_is_not_lost_in_code_that_swallows_everything(cases):
    case = cases["swallowed"]
    assert (case["status"], case["printed"]) == (143, f"cleaned\n{TERMINATED}")
    assert 3 * stopping.RETRY <= case["seconds"] < 20


def test_errors_of_others_are_printed_unless_the_tool_is_stopped(cases):
    case = cases["everything_complains_of_its_own"]
    assert case["status"] == 0
    assert "ZeroDivisionError" in case["printed"] and "ConnectionResetError" in case["printed"]


def processes_of(group):
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


def stop_training(folder, end, start_method="fork"):
    """Start a training with two workers, end it after its first checkpoint; status and errors.

    It leaves no process and no half-written file behind, or this fails.
    """
    text = config_text(folder / "ranks", batch_size=1, epochs=500, norm="BN")
    text = text.replace("num_workers=0", "num_workers=2, persistent_workers=True")
    text += f'env_cfg = dict(mp_cfg=dict(mp_start_method="{start_method}"))\n'
    (folder / "config.py").write_text(text)
    work_dir = folder / "run"
    tool = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "train.py"), str(folder / "config.py")]
        + ["--work-dir", str(work_dir)],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts what runs in its background, maybe these tests, with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not (work_dir / "last_checkpoint").exists() and time.monotonic() < deadline:
        assert tool.poll() is None, tool.stderr.read()
        time.sleep(0.05)
    assert len(processes_of(tool.pid)) > 1
    end(tool.pid)
    errors = tool.communicate(timeout=60)[1]
    while processes_of(tool.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(tool.pid) == []
    assert not [path.name for path in work_dir.iterdir() if path.name.startswith(".")]
    return tool.returncode, errors


def assert_ends_quietly(errors, line):
    assert errors.endswith(line), errors
    assert "Traceback" not in errors, errors
    assert errors.count("error: ") == 1, errors


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks for workers in /proc"
)


@pytest.mark.slow
@needs_proc
def test_a_training_that_gets_sigterm_leaves_no_worker_and_no_half_file(tmp_path):
    status, errors = stop_training(tmp_path, lambda pid: os.kill(pid, signal.SIGTERM))
    assert status == 143, errors
    assert_ends_quietly(errors, TERMINATED)


@pytest.mark.exhaustive
@needs_proc
@pytest.mark.parametrize(
    ("number", "status", "line"),
    [(signal.SIGTERM, 143, TERMINATED), (signal.SIGINT, 130, INTERRUPTED)],
)
def test_a_signal_for_the_whole_group_ends_a_training_as_quietly(tmp_path, number, status, line):
    """As a terminal sends Ctrl-C, and a service manager SIGTERM."""
    found, errors = stop_training(tmp_path, lambda pid: os.killpg(pid, number))
    assert found == status, errors
    assert_ends_quietly(errors, line)


@pytest.mark.exhaustive
@needs_proc
def test_workers_that_were_spawned_speak_before_the_last_line(tmp_path):
    status, errors = stop_training(tmp_path, lambda pid: os.kill(pid, signal.SIGTERM), "spawn")
    assert status == 143, errors
    assert errors.endswith(TERMINATED), errors
