"""Interrupted runs end where uninterrupted ones do."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmvanilla.engine import reseed_hook
from tests import toy_training

DRAWN: list[tuple[float, float]] = []
OURS = dict(type="ReseedHook")


@HOOKS.register_module()
class Draw(Hook):
    """Draws numbers at the begin of each epoch."""

    def before_train_epoch(self, runner) -> None:
        DRAWN.append((float(torch.rand(())), float(np.random.rand())))


def train(folder, name, by_epoch=True, hooks=(OURS,), resume=None, **more):
    """Train four epochs, or eight iterations, with dropout and noise; return the weights."""
    options = {
        "train_dataloader.dataset.noise": 1.0,
        "model.dropout": 0.5,
        "custom_hooks": [dict(type="DeepTrainingHook", decay_epochs=3), dict(type="Draw"), *hooks],
        **more,
    }
    if not by_epoch:
        options["custom_hooks"][:2] = [dict(type="DeepTrainingHook", decay_iters=6)]
        options["train_cfg"] = dict(_delete_=True, by_epoch=False, max_iters=8, val_interval=8)
        options["train_dataloader.sampler"] = dict(type="InfiniteSampler", shuffle=True)
        options["default_hooks.checkpoint.by_epoch"] = False
    DRAWN.clear()
    config = toy_training.write_config(folder / "config.py")
    saved = folder / "whole" / resume if resume else None
    runner = toy_training.train(
        config, folder / name, cfg_options=options, resume=saved and str(saved)
    )
    return runner.model.state_dict(), DRAWN[:]


def same(left: dict, right: dict) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(left[key], right[key]) for key in left)


def test_each_process_epoch_and_part_of_a_step_draws_numbers_of_its_own(monkeypatch):
    drawn = set()
    for rank, number, part in itertools.product(range(2), repeat=3):
        monkeypatch.setattr(reseed_hook, "get_rank", lambda rank=rank: rank)
        reseed_hook.ReseedHook()._seed(SimpleNamespace(seed=0), number, part)
        drawn.add((float(torch.rand(())), float(np.random.rand())))
    assert all(len(set(numbers)) == 8 for numbers in zip(*drawn, strict=True))


@pytest.mark.parametrize("by_epoch", [True, False], ids=["epochs", "iterations"])
@pytest.mark.parametrize("hooks", [[OURS], []], ids=["with", "without"])
def test_a_resumed_run_has_the_same_weights_only_with_the_hook(tmp_path, by_epoch, hooks):
    whole, drawn = train(tmp_path, "whole", by_epoch, hooks)
    middle = "epoch_2.pth" if by_epoch else "iter_4.pth"
    resumed, again = train(tmp_path, "resumed", by_epoch, hooks, middle)
    assert same(whole, resumed) == bool(hooks)
    assert float(whole["backbone.stem.conv.act.act_lambda"]) == 1.0
    if by_epoch:
        assert len(set(drawn)) == 4  # epochs differ
        assert (drawn[2:] == again) == bool(hooks)


def test_seeds_behind_what_an_older_mmengine_reads_again():
    """Such an mmengine's loop has no skip_iter, so it draws numbers for what it skips."""
    drawn = []
    batches = reseed_hook._seed_behind(iter(range(5)), skipped=2, seed=lambda: drawn.append("seed"))
    for batch in batches:
        drawn.append(batch)
    assert drawn == [0, 1, "seed", 2, 3, 4]


@pytest.mark.parametrize(
    ("by_epoch", "options", "words"),
    [
        (True, {"randomness.seed": None}, "fixed seed"),
        (True, {"train_dataloader.persistent_workers": True}, "num_workers=1"),
        (False, {"train_dataloader.persistent_workers": False}, "num_workers=1"),
    ],
)
def test_what_it_cannot_control_is_refused(tmp_path, by_epoch, options, words):
    with pytest.raises(ValueError, match=words):
        train(tmp_path, "work", by_epoch, **options, **{"train_dataloader.num_workers": 1})
