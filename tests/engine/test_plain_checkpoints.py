"""What training writes is plain and whole, and comes back when a run is resumed."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer, MessageHub

from mmvanilla import PlainCheckpointHook
from tests.toy_training import train, write_config

SCHEDULES = """
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, end=1),
    dict(type="OneCycleLR", eta_max=0.01, total_steps=4, begin=1, by_epoch=True),
    dict(type="MultiStepLR", milestones=[2, 3], begin=1),
]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training with averages and schedules, of which one keeps a function."""
    work = tmp_path_factory.mktemp("plain")
    config = write_config(work / "config.py", epochs=2, extra=SCHEDULES)
    return SimpleNamespace(config=config, work=work, runner=train(config, work))


def test_torch_reads_them_without_a_list_of_classes(run):
    saved = torch.load(run.work / "epoch_2.pth", weights_only=True)
    assert {"optimizer", "param_schedulers", "ema_state_dict", "message_hub"} <= saved.keys()
    assert isinstance(saved["state_dict"], OrderedDict) and saved["state_dict"]._metadata
    losses = saved["message_hub"]["log_scalars"]["train/loss"]
    assert len(losses["log"]) == len(losses["count"]) == 4
    log = next(run.work.glob("*/*.log")).read_text()
    assert log.count("left out of checkpoints") == 1
    # The toolboxes resume from it without our hook.
    hub = MessageHub("read without our hook")
    hub.load_state_dict(saved["message_hub"])
    assert hub.get_info("epoch") == 1
    assert "param_schedulers.1.anneal_func" in log


def test_a_resumed_run_has_its_histories_and_schedules_again(run, tmp_path):
    resumed = train(run.config, tmp_path, 4, resume=str(run.work / "epoch_2.pth"))
    before, after = (each.message_hub.log_scalars["train/loss"] for each in (run.runner, resumed))
    assert isinstance(after, HistoryBuffer)
    for old, new in zip(before.data, after.data, strict=True):
        assert new[: len(old)].tolist() == old.tolist() and new.dtype == old.dtype
    assert len(after.data[0]) == 8
    assert resumed.param_schedulers[1].anneal_func is not None


def test_values_become_plain():
    hook, said = PlainCheckpointHook(), []
    runner = SimpleNamespace(logger=SimpleNamespace(warning=said.append))
    weights = torch.ones(2)
    meta = dict(palette=np.arange(3), best=np.float32(0.5), size=torch.Size([2, 3]))
    meta.update(names=("a", np.str_("b")), odd=[1, object()])
    checkpoint = dict(state_dict=OrderedDict(w=weights), meta=meta)
    hook.before_save_checkpoint(runner, checkpoint)
    assert checkpoint["state_dict"]["w"] is weights
    assert checkpoint["meta"] == dict(
        palette=[0, 1, 2], best=0.5, size=(2, 3), names=("a", "b"), odd=[1]
    )
    assert type(checkpoint["meta"]["best"]) is float and type(checkpoint["meta"]["names"][1]) is str
    assert len(said) == 1 and "meta.odd.1" in said[0]
    hook.before_save_checkpoint(runner, dict(meta=dict(odd=[1, object()])))
    assert len(said) == 1


def test_a_kill_in_the_middle_of_the_writing_leaves_the_older_file(tmp_path, monkeypatch):
    config = write_config(tmp_path / "config.py", epochs=1)
    train(config, tmp_path)
    before = (tmp_path / "epoch_1.pth").read_bytes()

    def die(*arguments):
        raise KeyboardInterrupt

    # Our writing ends with this, after everything is on the disk.
    monkeypatch.setattr(os, "replace", die)
    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path)
    assert (tmp_path / "epoch_1.pth").read_bytes() == before
    assert [path.name for path in tmp_path.glob("*.pth*")] == ["epoch_1.pth"]


@pytest.mark.parametrize(
    ("options", "is_ours"),
    [
        (dict(), True),
        (dict(backend_args=dict(backend="local")), False),
        (dict(out_dir="s3://bucket"), False),
    ],
)
def test_other_ways_to_store_a_file_stay(options, is_ours):
    hook = CheckpointHook(**options)
    PlainCheckpointHook().before_train(SimpleNamespace(hooks=[hook]))
    assert (hook.backend_args == dict(backend="mmvanilla_whole_files")) == is_ours
