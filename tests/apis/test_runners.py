"""What the Runners of our tools refuse, and what they do beyond mmengine's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mmvanilla.apis.runners import build_test_runner, build_train_runner
from tests.checkpoints import hostile
from tests.helpers import ROOT, release
from tests.toy_training import train, write_config

MODEL = "model = dict(type='X')\n"
TRAINING = MODEL + "train_dataloader = {}\ntrain_cfg = {}\noptim_wrapper = {}\n"
TESTING = MODEL + "test_dataloader = {}\ntest_evaluator = {}\n"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runners")
    train(write_config(folder / "config.py", epochs=1), folder / "work")
    return folder / "work"


@pytest.fixture
def write(tmp_path):
    def write_config(text):
        (tmp_path / "config.py").write_text(text)
        return str(tmp_path / "config.py")

    return write_config


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (TRAINING + "train_cfg = None", {}, r"config\.py has no train_cfg;"),
        (TRAINING, dict(auto_scale_lr=True), "base_batch_size"),
        (TRAINING + "optim_wrapper = dict(type='Own')", dict(amp=True), "would replace the Own"),
        (TRAINING + "runner_type = 'Nowhere'", {}, r"config\.py: unknown runner_type 'Nowhere'"),
    ],
)
def test_what_a_training_cannot_serve_is_refused(write, text, options, message):
    with pytest.raises(ValueError, match=message):
        build_train_runner(write(text), **options)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (TRAINING, {}, "has no test_dataloader, test_eval"),
        (TESTING, dict(checkpoint="nowhere.pth"), r"no checkpoint at nowhere\.pth"),
        (TESTING, dict(out="predictions.json"), r"\.pkl"),
        (TESTING, dict(tta=True), "no tta_model"),
        (TESTING, dict(show_dir="pictures"), "nothing can be drawn"),
    ],
)
def test_what_a_test_cannot_serve_is_refused(write, tmp_path, text, options, message):
    (tmp_path / "weights.pth").touch()
    options = dict(checkpoint=str(tmp_path / "weights.pth")) | options
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build_test_runner(write(text), **options)


def test(config, path, work_dir, **options):
    runner = build_test_runner(str(config), str(path), str(work_dir), cfg_options=options)
    try:
        return runner.test()
    finally:
        release(runner)


test.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("head.weight"), r"changed\.pth cannot.*head\.weight"),
        (lambda weights: weights.update(x=torch.ones(1)), r"unexpected key .*: x"),
        (lambda weights: weights.update({"head.bias": torch.ones(9)}), "size mismatch"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_weights_that_do_not_fit_are_not_tested(work, tmp_path, change, message):
    saved = torch.load(work / "epoch_1.pth", weights_only=True)
    change(saved["state_dict"])
    torch.save(saved, tmp_path / "changed.pth")
    with pytest.raises(RuntimeError, match=message):
        test(work.parent / "config.py", tmp_path / "changed.pth", tmp_path, custom_hooks=[])


def test_another_head_may_be_trained_from_older_weights(work, tmp_path):
    """Also by a command that goes on from the last checkpoint: there is none at its first start."""
    saved = torch.load(work / "epoch_1.pth", weights_only=True)
    del saved["state_dict"]["head.weight"]
    torch.save(dict(state_dict=saved["state_dict"]), tmp_path / "start.pth")
    options = dict(load_from=str(tmp_path / "start.pth"))
    config = str(work.parent / "config.py")
    assert train(config, tmp_path / "work", cfg_options=options, resume="auto")._has_loaded
    trained = torch.load(tmp_path / "work" / "epoch_1.pth", weights_only=True)["state_dict"]
    assert trained["head.weight"].isfinite().all()


def test_a_second_training_in_the_same_folder_is_refused(work, tmp_path):
    config, folder = str(work.parent / "config.py"), str(tmp_path / "work")
    runner = build_train_runner(config, folder)
    before = sorted((tmp_path / "work").rglob("*"))
    code = f"from mmvanilla.apis.runners import *; build_train_runner({config!r}, {folder!r})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert f"another training runs in {folder}" in done.stderr
    assert sorted((tmp_path / "work").rglob("*")) == before
    release(runner)
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.parametrize("runner_type", ["Runner", "SqrtLRRunner"])
@pytest.mark.parametrize("counts", [1, 4])
def test_accumulated_batches_count_for_the_learning_rate(tmp_path, runner_type, counts):
    config = write_config(tmp_path / "config.py", epochs=1)
    options = {
        "runner_type": runner_type,
        "auto_scale_lr": dict(base_batch_size=16),
        "optim_wrapper.accumulative_counts": counts,
        "optim_wrapper.constructor": "DefaultOptimWrapperConstructor",
        "optim_wrapper.paramwise_cfg": None,
    }
    runner = train(config, tmp_path / "work", cfg_options=options, auto_scale_lr=True)
    factor = 4 * counts / 16  # of 4 images
    expected = 5e-3 * (factor if runner_type == "Runner" else factor**0.5)
    assert runner.optim_wrapper.optimizer.param_groups[0]["lr"] == pytest.approx(expected)


@pytest.mark.parametrize("way", ["load_from", "resume", "auto", "init_cfg", "test"])
def test_no_way_to_a_checkpoint_runs_code(work, tmp_path, way):
    config, victim = str(work.parent / "config.py"), tmp_path / "victim"
    path = tmp_path / "evil.pth"
    evil = hostile.attack("pathlib.Path.touch", victim, hostile.call_by_reduce)
    hostile.checkpoint_with(evil, path)
    (tmp_path / "last_checkpoint").write_text(str(path))
    pretrained = dict(type="Pretrained", checkpoint=str(path))
    options = {
        "load_from": dict(cfg_options=dict(load_from=str(path))),
        "resume": dict(resume=str(path)),
        "auto": dict(resume="auto"),
        "init_cfg": dict(cfg_options={"model.backbone.init_cfg": pretrained}),
    }
    saved = torch.load(work / "epoch_1.pth", weights_only=True)
    saved["meta"]["config"] = f"open({str(victim)!r}, 'w')"  # mmengine runs it on resuming
    torch.save(saved, tmp_path / "texts.pth")
    test(config, tmp_path / "texts.pth", tmp_path, resume=True)
    with pytest.raises((ValueError, RuntimeError), match=r"evil\.pth"):
        train(config, tmp_path, **options[way]) if way in options else test(config, path, tmp_path)
    assert not victim.exists()
