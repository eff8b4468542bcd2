"""The process that trains one run; that it trains is tested with the tool, in test_trainings.py."""

from __future__ import annotations

import copy
import os
import signal
import threading
import time

import pytest
import torch

from mmvanilla import count_fusable
from mmvanilla.analysis import train_and_compare, training_process
from mmvanilla.analysis.training_process import Process, Request, RunFailed
from tests.idx_images import tiny_config, write_idx_images

# Stands in for the training: it says who it is, and takes its time.
STAND_IN = """
import os, time
from mmvanilla.analysis import training_process as module
def train(request):
    with open(os.path.join(request.folder, "pid"), "w") as file:
        file.write(str(os.getpid()) + " " + os.environ["OMP_NUM_THREADS"])
    time.sleep(60)
module.train_and_validate = train
module.main()
"""

# Stands in for a training whose data loader has workers of its own, as most configs have.
STAND_IN_WITH_WORKERS = """
from torch.utils.data import DataLoader
from mmvanilla.analysis import training_process as module
def train(request):
    loaded = [x.item() for x in DataLoader([3, 4], num_workers=2, multiprocessing_context="fork")]
    return module.Result(dict(loaded=loaded), None, 0, 0, 0, 0, [], 0, 0)
module.train_and_validate = train
module.main()
"""


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize("averaged", [True, False])
def test_what_a_checkpoint_holds_is_validated_and_fused(tmp_path, monkeypatch, averaged):
    (tmp_path / "tiny.py").write_text(tiny_config(write_idx_images(tmp_path / "data")))
    seen = []

    def validate(runner, model):
        seen.append(copy.deepcopy(model))
        return {"top1": 1.0}

    monkeypatch.setattr(train_and_compare, "_validate", validate)
    ema = {"default_hooks.ema": dict(type="EMAHook", momentum=0.1)} if averaged else {}
    request = Request(str(tmp_path / "tiny.py"), ema, 3, str(tmp_path / "run"))
    result = training_process.train_and_validate(request)
    saved = torch.load(tmp_path / "run" / "epoch_2.pth", weights_only=False)
    assert ("ema_state_dict" in saved) == averaged
    trained, fused = seen
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(value, saved["state_dict"][name], rtol=0, atol=0)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(fused(x)[0], trained.eval()(x)[0], rtol=1e-4, atol=1e-4)
    assert (result.trained, result.num_fused) == ({"top1": 1.0}, count_fusable(trained))
    assert result.parameters == sum(param.numel() for param in fused.parameters())


@pytest.mark.slow
def test_its_data_loader_may_have_workers(tmp_path, monkeypatch):
    (tmp_path / "training_with_workers.py").write_text(STAND_IN_WITH_WORKERS)
    monkeypatch.setattr(training_process, "_MODULE", "training_with_workers")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = Process(Request("any.py", {}, 0, str(tmp_path / "run")), threads=1)
    timer = threading.Timer(120, process.end)  # instead of waiting for ever
    timer.start()
    try:
        assert process.wait().trained == {"loaded": [3, 4]}
    finally:
        timer.cancel()


@pytest.mark.slow
def test_it_ends_with_this_process_and_its_end_is_reported(tmp_path, monkeypatch):
    (tmp_path / "training_stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(training_process, "_MODULE", "training_stand_in")
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
