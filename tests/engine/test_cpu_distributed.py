"""Two gloo processes on the CPU, through tools/train.py as a user starts them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODEL_WRAPPERS
from torch import distributed as torch_distributed
from torch import nn

from mmvanilla.engine import cpu_distributed
from mmvanilla.engine.cpu_distributed import CPUSyncBatchNorm, adapt_sync_batchnorm
from tests import toy_training
from tests.helpers import ROOT

EPOCHS = 5
# With λ for 3 epochs, two iterations each.
LAMBDAS = [value for value in (0.0, 1 / 3, 2 / 3, 1.0, 1.0) for _ in range(2)]

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="these are the ways around a GPU that is not there"
)


def environment(**changes: str) -> dict[str, str]:
    return {
        **{key: value for key, value in os.environ.items() if key not in (*_RANKS, "PYTHON")},
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PORT": str(_free_port()),
        **changes,
    }


def start(script: str, *arguments, nodes: int = 1) -> tuple[int, str]:
    """Run one of tools/ as a user would; the exit status and all that it printed.

    Args:
        script: A .py or .sh file there.
        arguments: Arguments of the command line.
        nodes: Start it this often at once, as one would on so many machines.
    """
    shell = "bash" if script.endswith(".sh") else sys.executable
    env = environment()
    started = [
        subprocess.Popen(
            [shell, str(ROOT / "tools" / script), *map(str, arguments)],
            env=dict(env, NNODES=str(nodes), NODE_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(nodes)
    ]
    try:
        printed = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return max(process.returncode for process in started), "".join(printed)


def launch(script: str, *arguments, nodes: int = 1) -> str:
    """Run one of tools/, which must not fail, and return what it printed."""
    status, printed = start(script, *arguments, nodes=nodes)
    assert status == 0, printed[-3000:]
    return printed


_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def write_config(folder: Path, name: str, **kwargs) -> Path:
    path = folder / f"{name}.py"
    text = toy_training.config_text(out_dir=folder / name, **kwargs)
    path.write_text(text, encoding="utf-8")
    return path


def ranks(folder: Path) -> list[dict]:
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("rank*.pth"))]


def assert_same(first: dict, second: dict, **tolerance) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, **tolerance or dict(rtol=0, atol=0))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, list[dict]]:
    """One process; two processes with the images split evenly; two, resumed after two epochs."""
    pytest.importorskip("mmvanilla.engine.deep_training_hook")
    folder = tmp_path_factory.mktemp("distributed")
    single = write_config(folder, "single", batch_size=4, epochs=EPOCHS)
    double = write_config(folder, "double", batch_size=2, epochs=EPOCHS)
    resumed = write_config(folder, "resumed", batch_size=2, epochs=EPOCHS)
    alone = folder / "alone"
    alone.mkdir()
    command = [sys.executable, ROOT / "tools" / "train.py", single]
    done = subprocess.run(command, cwd=alone, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    logs = dict(single=done.stdout + done.stderr)
    work, resumed_work = folder / "work", folder / "resumed_work"
    logs["double"] = launch("dist_train.sh", double, 2, "--work-dir", work)
    # What a run that was stopped after two epochs leaves.
    resumed_work.mkdir()
    shutil.copy(work / "epoch_2.pth", resumed_work)
    (resumed_work / "last_checkpoint").write_text(str(resumed_work / "epoch_2.pth"))
    # Resumed on two machines, so to speak, with one process each.
    logs["resumed"] = launch(
        *("dist_train.sh", resumed, 1, "--work-dir", resumed_work, "--resume"), nodes=2
    )
    last = work / f"epoch_{EPOCHS}.pth"
    logs["tested"] = launch("dist_test.sh", double, last, 2, "--work-dir", work)
    return dict(
        single=ranks(folder / "single"),
        double=ranks(folder / "double"),
        resumed=ranks(folder / "resumed"),
        logs=logs,
        work=work,
    )


def test_processes_have_equal_lambda_and_weights(runs):
    assert [len(runs[name]) for name in ("single", "double", "resumed")] == [1, 2, 2]
    for name in ("double", "resumed"):
        first, second = runs[name]
        expected = LAMBDAS if name == "double" else LAMBDAS[4:]
        assert first["lambdas"] == second["lambdas"] == pytest.approx(expected)
        assert first["losses"] != second["losses"], "both processes saw the same images"
        assert_same(first["model"], second["model"])
        assert_same(first["ema"], second["ema"])


def test_sync_batchnorm_is_adapted_with_a_log_line(runs):
    assert runs["double"][0]["norms"] == ["CPUSyncBatchNorm", "ConvNorm"]
    assert runs["double"][0]["wrapper"] == "CPUDistributedDataParallel"
    assert "10 SyncBN layers synchronise their statistics through gloo" in runs["logs"]["double"]
    assert "SyncBatchNorm" not in runs["single"][0]["norms"]
    assert "automatically reverted" in runs["logs"]["single"]


def test_an_even_split_follows_the_single_process(runs):
    """The same images in each step: only the order of the sums differs."""
    (single,), (first, second) = runs["single"], runs["double"]
    mean = [(a + b) / 2 for a, b in zip(first["losses"], second["losses"], strict=True)]
    assert mean == pytest.approx(single["losses"], rel=1e-4)
    assert single["losses"][0] > 1.5 * single["losses"][-1], "nothing was learnt"
    # Not the biases before a norm: nothing but rounding moves them, and Adam enlarges that.
    weights = {key for key, value in single["model"].items() if value.dim() > 1}
    assert len(weights) == 10  # 3 in each of stem and two blocks, and the head
    for key in weights:
        torch.testing.assert_close(first["model"][key], single["model"][key], rtol=1e-2, atol=1e-3)


@pytest.mark.exhaustive
def test_channels_last_trains_the_same(runs, tmp_path):
    config = write_config(tmp_path, "other", batch_size=2, epochs=EPOCHS)
    launch("dist_train.sh", config, 2, "--channels-last", "--work-dir", tmp_path / "work")
    plain, (first, second) = runs["double"][0], ranks(tmp_path / "other")
    assert_same(first["model"], second["model"])
    assert first["wrapper"] == plain["wrapper"]
    assert first["losses"] == pytest.approx(plain["losses"], rel=1e-2)
    assert first["losses"] != plain["losses"]  # another format, other rounding


def test_a_resumed_run_ends_as_the_uninterrupted_one(runs):
    whole, resumed = runs["double"][0], runs["resumed"][0]
    assert resumed["losses"] == pytest.approx(whole["losses"][4:], rel=1e-5)
    assert_same(whole["model"], resumed["model"], rtol=1e-4, atol=1e-6)
    assert_same(whole["ema"], resumed["ema"], rtol=1e-4, atol=1e-6)


def test_the_checkpoint_is_written_once_and_carries_lambda(runs):
    from mmengine.runner.checkpoint import _load_checkpoint

    state = _load_checkpoint(str(runs["work"] / f"epoch_{EPOCHS}.pth"), "cpu")["state_dict"]
    assert float(state["backbone.stem.conv.act.act_lambda"]) == 1.0
    assert not any(key.startswith("module.") for key in state)
    assert len(list(runs["work"].glob("epoch_*.pth"))) == EPOCHS


def test_two_processes_test_as_they_validated(runs):
    def accuracies(log: str) -> list[str]:
        return re.findall(r"accuracy: (\d\.\d+)", log)

    (tested,) = accuracies(runs["logs"]["tested"])
    assert len(accuracies(runs["logs"]["double"])) == EPOCHS
    assert tested == accuracies(runs["logs"]["double"])[-1]


def test_a_failing_process_fails_the_launcher(tmp_path):
    config = write_config(tmp_path, "broken", batch_size=2, epochs=1)
    config.write_text(config.read_text("utf-8").replace("decay_rate", "decay_rat"), "utf-8")
    status, printed = start("dist_train.sh", config, 2, "--work-dir", tmp_path / "work")
    assert status != 0
    assert "broken.py cannot be trained: optim_wrapper" in printed
    assert "layer-wise decay needs paramwise_cfg" in printed


@pytest.mark.parametrize("script", ["train", "test"])
def test_slurm_scripts(script, tmp_path):
    """With a srun that only writes down what it was asked."""
    srun = tmp_path / "srun"
    srun.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/asked\n', encoding="utf-8")
    srun.chmod(0o755)
    env = environment(GPUS="4", SRUN_ARGS="--quiet --exclusive")
    env["PATH"] = f"{tmp_path}{os.pathsep}{env['PATH']}"
    command = [
        "bash",
        str(ROOT / f"tools/slurm_{script}.sh"),
        "short",
        "my job",
        "a.py",
        "b",
        "--x",
    ]
    subprocess.run(command, check=True, env=env)
    asked = (tmp_path / "asked").read_text("utf-8").splitlines()
    options, python = asked[: asked.index("python")], asked[asked.index("python") :]
    assert options == [
        *("-p", "short", "--job-name=my job", "--ntasks=4", "--gres=gpu:4", "--ntasks-per-node=4"),
        *("--cpus-per-task=5", "--kill-on-bad-exit=1", "--quiet", "--exclusive"),
    ]
    assert python[:4] == ["python", "-u", str(ROOT / f"tools/{script}.py"), "a.py"]
    given = ["--work-dir", "b"] if script == "train" else ["b"]
    assert python[4:] == [*given, "--launcher", "slurm", "--x"]


@pytest.mark.parametrize("script", ["dist_train", "dist_test", "slurm_train", "slurm_test"])
def test_scripts_say_how_to_use_them(script):
    status, printed = start(f"{script}.sh", "config.py")
    assert status == 2
    assert printed.startswith("usage: ") and "CONFIG" in printed


@pytest.mark.parametrize("launcher", ["pytorch", "slurm", "mpi"])
@pytest.mark.usefixtures("no_ranks")
def test_one_process_under_each_launcher(launcher, monkeypatch):
    """World size 1: SyncBN is reverted although there is a process group."""
    for name, value in zip(cpu_distributed._LAUNCHERS[launcher], "010", strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(_free_port()))
    cfg = Config(dict(launcher=launcher, find_unused_parameters=True))
    try:
        cpu_distributed.prepare(cfg)
        assert torch_distributed.get_backend() == "gloo"
        wrapper = MODEL_WRAPPERS.build(
            dict(cfg.model_wrapper_cfg, module=toy_training.small_model(), device_ids=[0])
        )
        assert wrapper.find_unused_parameters and not wrapper.broadcast_buffers
        kinds = {type(module).__name__ for module in wrapper.modules()}
        assert "_BatchNormXd" in kinds and "SyncBatchNorm" not in kinds
        wrapper(torch.rand(2, 3, 32, 32))[-1].sum().backward()
    finally:
        cpu_distributed.finish()
    assert not torch_distributed.is_initialized()


@pytest.fixture
def no_ranks(monkeypatch):
    for name in _RANKS:
        monkeypatch.delenv(name, raising=False)


def test_prepare_leaves_a_config_without_launcher_alone():
    cfg = Config(dict(launcher="none", model=dict(norm_cfg=dict(type="SyncBN"))))
    before = cfg.to_dict()
    cpu_distributed.prepare(cfg)
    cpu_distributed.finish()
    assert cfg.to_dict() == before


@pytest.mark.usefixtures("no_ranks")
def test_prepare_names_what_the_launcher_did_not_set():
    with pytest.raises(RuntimeError, match=r"sets RANK, WORLD_SIZE, LOCAL_RANK.*dist_train\.sh"):
        cpu_distributed.prepare(Config(dict(launcher="pytorch")))
    with pytest.raises(ValueError, match="found 'horovod'"):
        cpu_distributed.prepare(Config(dict(launcher="horovod")))


def test_adapt_keeps_parameters_and_shared_layers():
    norm = nn.SyncBatchNorm(4)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.Sequential(norm))
    params = list(model.parameters())
    adapted = adapt_sync_batchnorm(model)  # no process group: a single process
    assert all(a is b for a, b in zip(adapted.parameters(), params, strict=True))
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in adapted.modules())
    plain = nn.Sequential(nn.BatchNorm2d(3))
    assert adapt_sync_batchnorm(plain) is plain


def test_cpu_sync_batchnorm_alone_is_batch_norm():
    torch.manual_seed(0)
    norm, sync = nn.BatchNorm2d(4, eps=1e-3), nn.SyncBatchNorm(4, eps=1e-3)
    cpu = CPUSyncBatchNorm.like(sync)
    x = torch.randn(2, 4, 5, 5) * 3 + 1
    for training in (True, False):
        norm.train(training), cpu.train(training)
        torch.testing.assert_close(cpu(x), norm(x))
    torch.testing.assert_close(cpu.state_dict(), norm.state_dict())
    with pytest.raises(ValueError, match="found a tensor of 1 dim"):
        cpu(torch.ones(4))
