"""The process that trains one run; that it trains is tested with the tool, in test_ablation.py."""

from __future__ import annotations

import os
import signal
import time

import pytest

from mmvanilla.analysis import ablation_run
from mmvanilla.analysis.ablation_run import Process, Request, RunFailed

# Stands in for the training: it says who it is, and takes its time.
STAND_IN = """
import os, time
from mmvanilla.analysis import ablation_run as module
def train(request):
    with open(os.path.join(request.folder, "pid"), "w") as file:
        file.write(str(os.getpid()) + " " + os.environ["OMP_NUM_THREADS"])
    time.sleep(60)
module.train_and_validate = train
module.main()
"""


@pytest.mark.slow
def test_it_ends_with_this_process_and_its_end_is_reported(tmp_path, monkeypatch):
    (tmp_path / "ablation_stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(ablation_run, "_MODULE", "ablation_stand_in")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    folders = [tmp_path / name for name in ("first", "second", "third")]
    first, second, third = (
        Process(Request("any.py", {}, 0, str(folder)), threads=3) for folder in folders
    )

    def pid_of(folder):
        file, until = folder / "pid", time.monotonic() + 120
        while not (file.is_file() and " " in file.read_text()) and time.monotonic() < until:
            time.sleep(0.05)
        pid, threads = file.read_text().split()
        assert threads == "3"
        return int(pid)

    # As the kernel does it when memory runs out, and as someone who wants the machine.
    os.kill(pid_of(folders[0]), signal.SIGKILL)
    with pytest.raises(RunFailed, match=r"its process was ended by SIGKILL; see .*first/log.txt"):
        first.wait()
    # When this process dies, the pipe closes, which ends the other one.
    pid_of(folders[1])
    second._process.stdin.close()
    second._process.wait(timeout=60)
    second.end()
    pid_of(folders[2])
    third.end()
    assert third._process.returncode == -signal.SIGKILL
    third.end()  # again, nothing happens
