"""Interrupted runs end where uninterrupted ones do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from mmvanilla import DeepTrainingHook, ReseedHook
from mmvanilla.engine.reseed_hook import _seed_behind
from mmvanilla.models.conv_pair import ConvPair
from tests import toy_training
from tests.helpers import ROOT


class NoisyImages(Dataset):
    """Augments from numpy's global random state, as the toolboxes' pipelines do."""

    metainfo: dict = {}

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        image = np.full((3, 6, 6), index, np.float32) + np.random.randn(3, 6, 6)
        return torch.from_numpy(image.astype(np.float32))


class DropoutModel(BaseModel):
    """Draws from torch's global random state while training."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvPair(3, 8, 3, padding=1), nn.Dropout(0.5), ConvPair(8, 2, 1)
        )

    def forward(self, inputs, mode: str = "tensor"):
        return self.layers(torch.stack(list(inputs)))

    def train_step(self, data, optim_wrapper):
        loss, log = self.parse_losses(dict(loss=functional.softplus(self(data)).mean()))
        optim_wrapper.update_params(loss)
        return log


def train(work_dir: Path, *, hooks: list, by_epoch: bool, resume: str | None = None, **loader):
    """Four epochs, or twelve iterations, with a checkpoint in the middle."""
    torch.manual_seed(0)
    sampler = "DefaultSampler" if by_epoch else "InfiniteSampler"
    runner = Runner(
        model=DropoutModel(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            **dict(dict(batch_size=2, num_workers=0), **loader),
            dataset=NoisyImages(),
            sampler=dict(type=sampler, shuffle=True),
        ),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-2)),
        train_cfg=dict(by_epoch=True, max_epochs=4)
        if by_epoch
        else dict(by_epoch=False, max_iters=12),
        custom_hooks=hooks,
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", interval=2 if by_epoch else 6, by_epoch=by_epoch)
        ),
        randomness=dict(seed=3),
        load_from=resume,
        resume=resume is not None,
        experiment_name=work_dir.name,
        cfg=Config(dict(randomness=dict(seed=3))),
    )
    runner.train()
    return runner.model.state_dict()


def same(left: dict, right: dict) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("by_epoch", [True, False], ids=["epochs", "iterations"])
class TestResume:
    def run_both(self, tmp_path, by_epoch, make_hooks) -> tuple[dict, dict]:
        whole = train(tmp_path / "whole", hooks=make_hooks(), by_epoch=by_epoch)
        middle = tmp_path / "whole" / ("epoch_2.pth" if by_epoch else "iter_6.pth")
        resumed = train(
            tmp_path / "resumed", hooks=make_hooks(), by_epoch=by_epoch, resume=str(middle)
        )
        return whole, resumed

    def test_gives_the_same_weights_bit_for_bit(self, tmp_path, by_epoch):
        def make_hooks():
            length = dict(decay_epochs=3) if by_epoch else dict(decay_iters=9)
            return [DeepTrainingHook(**length), ReseedHook()]

        whole, resumed = self.run_both(tmp_path, by_epoch, make_hooks)
        assert same(whole, resumed)
        assert float(whole["layers.0.act.act_lambda"]) == 1.0

    def test_would_not_without_the_hook(self, tmp_path, by_epoch):
        whole, resumed = self.run_both(tmp_path, by_epoch, lambda: [])
        assert not same(whole, resumed)


class TestReseedHook:
    def test_seeds_behind_what_an_older_mmengine_reads_again(self):
        """Such an mmengine's loop has no skip_iter, so it draws numbers for what it skips."""
        drawn = []
        batches = _seed_behind(iter(range(5)), skipped=2, seed=lambda: drawn.append("seed"))
        for batch in batches:
            drawn.append(batch)
        assert drawn == [0, 1, "seed", 2, 3, 4]

    def test_epochs_differ_and_seeds_differ(self, tmp_path):
        draws = set()

        class Draw(ReseedHook):
            def before_train_epoch(self, runner):
                super().before_train_epoch(runner)
                draws.add((float(torch.rand(())), float(np.random.rand())))

        train(tmp_path, hooks=[Draw()], by_epoch=True)
        assert len(draws) == 4

    def test_refuses_a_run_without_seed(self, tmp_path):
        runner = Runner(
            model=DropoutModel(),
            work_dir=str(tmp_path),
            train_dataloader=dict(
                batch_size=2, dataset=NoisyImages(), sampler=dict(type="DefaultSampler")
            ),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=1e-2)),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            custom_hooks=[ReseedHook()],
            experiment_name="no_seed",
        )
        with pytest.raises(ValueError, match="fixed seed"):
            runner.train()

    @pytest.mark.parametrize(
        ("by_epoch", "persistent"), [(True, True), (False, False), (False, True)]
    )
    def test_refuses_workers_that_it_cannot_reach(self, tmp_path, by_epoch, persistent):
        with pytest.raises(ValueError, match="cannot control the random numbers of num_workers=1"):
            train(
                tmp_path,
                hooks=[ReseedHook()],
                by_epoch=by_epoch,
                num_workers=1,
                persistent_workers=persistent,
            )


KILLER = """
import os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Killer(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if os.environ.get("KILL_AT") == f"{runner.epoch} {batch_idx}":
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.exhaustive
def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    """kill -9 in the middle of the decay, then --resume, as a user does it."""
    (tmp_path / "killer.py").write_text(KILLER)
    extra = 'custom_imports["imports"].append("killer")\n'
    extra += 'custom_hooks += [dict(type="ReseedHook"), dict(type="Killer")]\n'
    config = toy_training.write_config(tmp_path / "config.py", extra=extra)

    def tool(work_dir, *options, kill_at=""):
        paths = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "mmvanilla", "train", config, "--work-dir"]
        command += [str(tmp_path / work_dir), *options]
        env = dict(os.environ, PYTHONPATH=paths, KILL_AT=kill_at)
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True).returncode

    assert tool("whole") == 0
    assert tool("cut", kill_at="2 1") == -signal.SIGKILL
    assert not (tmp_path / "cut" / "epoch_3.pth").exists()
    assert tool("cut", "--resume") == 0
    whole, cut = (
        torch.load(tmp_path / name / "epoch_4.pth", weights_only=True) for name in ("whole", "cut")
    )
    # With EMA, state_dict holds the averaged weights and ema_state_dict the raw ones.
    assert same(whole["state_dict"], cut["state_dict"])
    assert same(whole["ema_state_dict"], cut["ema_state_dict"])
