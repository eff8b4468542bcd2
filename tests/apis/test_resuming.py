"""Resuming: from which file, without its code, and what is said where the config differs."""

from __future__ import annotations

import ast
import os
import re
import shutil

import pytest
import torch

from mmvanilla.apis.resuming import last_checkpoint
from tests.toy_training import train, write_config

TELLS_ADAM = "decoupled_weight_decay" in torch.optim.AdamW([torch.ones(1)]).defaults
SCHEDULES = "param_scheduler = [dict(type='CosineAnnealingLR', T_max=4, eta_min=1e-5, end=4)]\n"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A finished training of four epochs, of which λ takes three."""
    folder = tmp_path_factory.mktemp("resuming")
    config = write_config(folder / "config.py", extra=SCHEDULES)
    best = {
        "default_hooks.checkpoint.save_best": "accuracy",
        "default_hooks.checkpoint.rule": "less",
    }
    train(config, folder / "work", cfg_options=best)
    return folder / "work"


@pytest.fixture
def config(work):
    return str(work.parent / "config.py")


def log_of(folder):
    return max(folder.glob("*/*.log")).read_text()


HOOK = "custom_hooks.0"


@pytest.mark.parametrize(
    ("epochs", "options", "message"),
    [
        (4, {}, "nothing to train: the checkpoint is at epoch 4, max_epochs is 4"),
        (3, {}, "nothing to train: the checkpoint is at epoch 4, max_epochs is 3"),
        (6, {f"{HOOK}.decay_epochs": 6}, "λ would fall from 1 to 0.666667"),
        (6, {f"{HOOK}.begin": 5}, "λ would fall from 1 to 0"),
        (6, {"optim_wrapper.paramwise_cfg.num_layers": 1}, "another optimiser.* 8 groups,.* 6 gro"),
        (6, {"optim_wrapper.optimizer.type": "SGD"}, "another optimiser.*betas.*momentum"),
        pytest.param(
            *(6, {"optim_wrapper.optimizer.type": "Adam"}, "another optimiser"),
            marks=pytest.mark.skipif(not TELLS_ADAM, reason="torch has the same settings for both"),
        ),
        (6, {"param_scheduler": [dict(type="StepLR", step_size=1)]}, "another param_scheduler"),
    ],
    ids=["finished", "shorter", "longer λ", "later λ", "groups", "optimiser", "Adam", "schedules"],
)
def test_what_would_not_go_on_is_refused(work, config, tmp_path, epochs, options, message):
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path, epochs, cfg_options=options, resume=str(work / "epoch_4.pth"))
    assert not list(tmp_path.glob("*.pth"))


def test_it_says_which_value_is_used(work, config, tmp_path):
    options = {
        "optim_wrapper.optimizer.lr": 0.5,
        "optim_wrapper.optimizer.weight_decay": 0.25,
        "param_scheduler.0.T_max": 6,
        f"{HOOK}.schedule": "cosine",
        f"{HOOK}.by_epoch": False,
    }
    runner = train(config, tmp_path, 6, cfg_options=options, resume=str(work / "epoch_3.pth"))
    log = log_of(tmp_path)
    for line in (
        "max_epochs is the config's 6, not the checkpoint's 4",
        "lr is the checkpoint's 0.005, not the config's 0.5",
        "weight_decay is the checkpoint's 0.05, not the config's 0.25",
        "param_scheduler[0].T_max is the checkpoint's 4, not the config's 6",
        "of DeepTrainingHook, ",
    ):
        assert log.count(f"resumed with another config: {line}") == 1, line
    (line,) = (line for line in log.splitlines() if "of DeepTrainingHook" in line)
    ours, theirs = (ast.literal_eval(text) for text in re.findall("{.*?}", line))
    assert ours == dict(schedule="cosine", by_epoch=False)
    assert theirs == dict(schedule="linear", by_epoch=True)
    group = runner.optim_wrapper.optimizer.param_groups[-1]
    assert group["initial_lr"] == 0.005 and group["lr"] < 0.002 and group["weight_decay"] == 0.05


def test_it_says_nothing_where_nothing_differs(work, config, tmp_path):
    train(config, tmp_path, resume=str(work / "epoch_2.pth"))  # λ = 1/3
    log = log_of(tmp_path)
    assert "resumed with another config" not in log and "go on with DeepTrainingHook" not in log
    found, expected = (
        torch.load(folder / "epoch_4.pth", weights_only=True) for folder in (tmp_path, work)
    )
    for key, value in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][key], value), key


def test_a_file_without_the_state_of_a_training(work, config, tmp_path):
    (best,) = work.glob("best_*.pth")
    saved = torch.load(best, weights_only=True)
    torch.save(dict(state_dict=saved["state_dict"]), tmp_path / "weights.pth")
    saved = torch.load(work / "epoch_3.pth", weights_only=True)
    del saved["state_dict"]["head.weight"], saved["ema_state_dict"]["module.head.weight"]
    torch.save(saved, tmp_path / "epoch_3.pth")
    for path, words in (
        (best, rf"cannot resume from .*{best.name}: it has no optimizer, param"),
        (tmp_path / "weights.pth", r"cannot resume from .*weights\.pth: it has no meta, mess"),
        (tmp_path / "epoch_3.pth", r"epoch_3\.pth cannot be loaded .*head\.weight"),
    ):
        with pytest.raises((ValueError, RuntimeError), match=words):
            train(config, tmp_path / "work", 6, resume=str(path))


def test_the_text_of_a_config_in_the_file_is_not_executed(work, config, tmp_path):
    saved = torch.load(work / "epoch_3.pth", weights_only=True)
    saved["meta"]["config"] = f"import os\nos.mkdir({str(tmp_path / 'victim')!r})\n"
    torch.save(saved, tmp_path / "epoch_3.pth")
    train(config, tmp_path / "work", resume=str(tmp_path / "epoch_3.pth"))
    assert not (tmp_path / "victim").exists()


def test_a_copied_folder_goes_on_from_its_own(work, config, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(work, copied)
    assert (copied / "last_checkpoint").read_text() == str(work / "epoch_4.pth")
    runner = train(config, copied, 5, resume="auto")
    assert f"Load checkpoint from {copied / 'epoch_4.pth'}" in log_of(copied)
    for name in ("best_ckpt", "last_ckpt"):  # that a better or newer one replaces
        assert runner.message_hub.get_info(name).startswith(str(copied))


def test_clocks_do_not_matter(tmp_path):
    """A clock that was ahead gave an old run's file the newest time."""
    for name, when in (("epoch_12.pth", 4e9), ("epoch_3.pth", 100), ("last_checkpoint", 50)):
        torch.save(dict(w=torch.ones(1)), tmp_path / name)
        os.utime(tmp_path / name, (when, when))
    (tmp_path / "last_checkpoint").write_text("/elsewhere/epoch_3.pth")
    assert last_checkpoint(tmp_path) == tmp_path / "epoch_3.pth"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_damaged_file_is_refused_with_the_one_before_it(tmp_path, is_there):
    for number in (1, 2, 10):
        torch.save(dict(w=torch.ones(99)), tmp_path / f"epoch_{number}.pth")
    torch.save(dict(w=torch.ones(99)), tmp_path / "best_epoch_9.pth")  # without an optimiser
    newest = tmp_path / "epoch_10.pth"
    (tmp_path / "last_checkpoint").write_text(str(newest))
    newest.write_bytes(newest.read_bytes()[:300]) if is_there else newest.unlink()
    words = r"cannot resume: .*epoch_10.*--resume .*epoch_2\.pth"
    with pytest.raises(RuntimeError, match=words):
        last_checkpoint(tmp_path)


@pytest.mark.parametrize("note", [None, b"", b"\n"])
def test_without_a_note_it_does_not_guess(tmp_path, note):
    if note is not None:
        (tmp_path / "last_checkpoint").write_bytes(note)
    assert last_checkpoint(tmp_path) is None
    torch.save(dict(w=torch.ones(1)), tmp_path / "epoch_1.pth")
    with pytest.raises(RuntimeError, match=r"names no checkpoint; .*epoch_1\.pth"):
        last_checkpoint(tmp_path)
