"""What the Runners of our tools refuse, and what they do beyond mmengine's."""

from __future__ import annotations

import subprocess
import sys
from logging import FileHandler
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger

from mmvanilla.apis.runners import build_test_runner, build_train_runner, release
from tests.helpers import ROOT
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
        path = tmp_path / "config.py"
        path.write_text(text)
        return str(path)

    return write_config


@pytest.mark.parametrize("missing", ["train_dataloader", "train_cfg", "optim_wrapper"])
def test_a_config_that_only_tests_is_not_trained(write, missing):
    with pytest.raises(ValueError, match=rf"config\.py is not for training: it has no {missing};"):
        build_train_runner(write(TRAINING + f"{missing} = None"))


def test_a_config_that_only_trains_is_not_tested(write, tmp_path):
    (tmp_path / "weights.pth").touch()
    with pytest.raises(ValueError, match="not for testing: it has no test_dataloader, test_eval"):
        build_test_runner(write(TRAINING), str(tmp_path / "weights.pth"))


def test_scaling_the_learning_rate_needs_a_base_batch_size(write):
    with pytest.raises(ValueError, match="base_batch_size"):
        build_train_runner(write(TRAINING), auto_scale_lr=True)


def test_a_checkpoint_that_is_not_there_is_named(write):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at nowhere\.pth"):
        build_test_runner(write(TESTING), "nowhere.pth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(out="predictions.json"), r"\.pkl"),
        (dict(tta=True), "no tta_model"),
        (dict(show_dir="pictures"), "nothing can be shown"),
    ],
)
def test_options_that_a_config_cannot_serve_are_refused(write, tmp_path, options, message):
    checkpoint = tmp_path / "weights.pth"
    checkpoint.touch()
    with pytest.raises(ValueError, match=message):
        build_test_runner(write(TESTING), str(checkpoint), **options)


class TestStrictTest:
    def test(self, config, path, tmp_path):
        options = dict(custom_hooks=[])
        runner = build_test_runner(
            str(config), str(path), work_dir=str(tmp_path), cfg_options=options
        )
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
    def test_weights_that_do_not_fit_are_refused(self, work, tmp_path, change, message):
        saved = torch.load(work / "epoch_1.pth", weights_only=True)
        change(saved["state_dict"])
        torch.save(saved, tmp_path / "changed.pth")
        with pytest.raises(RuntimeError, match=message):
            self.test(work.parent / "config.py", tmp_path / "changed.pth", tmp_path)

    def test_a_prefix_of_a_wrapper_is_taken_off(self, work, tmp_path):
        saved = torch.load(work / "epoch_1.pth", weights_only=True)
        expected = self.test(work.parent / "config.py", work / "epoch_1.pth", tmp_path)
        weights = {f"module.{key}": value for key, value in saved["state_dict"].items()}
        torch.save(dict(state_dict=weights), tmp_path / "wrapped.pth")
        assert self.test(work.parent / "config.py", tmp_path / "wrapped.pth", tmp_path) == expected


def test_another_head_may_be_trained_from_older_weights(work, tmp_path):
    saved = torch.load(work / "epoch_1.pth", weights_only=True)
    del saved["state_dict"]["head.weight"]
    torch.save(dict(state_dict=saved["state_dict"]), tmp_path / "start.pth")
    options = dict(load_from=str(tmp_path / "start.pth"))
    train(str(work.parent / "config.py"), tmp_path / "work", cfg_options=options)
    trained = torch.load(tmp_path / "work" / "epoch_1.pth", weights_only=True)["state_dict"]
    assert trained["head.weight"].isfinite().all()


OTHER_PROCESS = """
import sys
from mmvanilla.apis.runners import build_train_runner
build_train_runner(sys.argv[1], sys.argv[2])
"""


def test_a_second_training_in_the_same_folder_is_refused(work, tmp_path):
    config = str(work.parent / "config.py")
    runner = build_train_runner(config, str(tmp_path / "work"))
    before = sorted((tmp_path / "work").rglob("*"))
    command = [sys.executable, "-c", OTHER_PROCESS, config, str(tmp_path / "work")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert f"another training runs in {tmp_path / 'work'}" in done.stderr
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


def test_a_released_runner_leaves_no_file_open(work, tmp_path):
    runner = build_train_runner(str(work.parent / "config.py"), str(tmp_path))
    files = [handler for handler in runner.logger.handlers if isinstance(handler, FileHandler)]
    assert files and all(handler.stream is not None for handler in files)
    release(runner)
    assert all(handler.stream is None for handler in files) and runner._lock.closed
    assert not MMLogger.check_instance_created(runner.experiment_name)


def test_an_unknown_kind_of_runner_is_named(write):
    with pytest.raises(ValueError, match=r"config\.py: unknown runner_type 'Nowhere'"):
        build_train_runner(write(TRAINING + "runner_type = 'Nowhere'"))


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return (Path.mkdir, (self.victim,))


@pytest.mark.parametrize("way", ["load_from", "resume", "auto", "init_cfg", "test"])
def test_no_way_to_a_checkpoint_runs_code(work, tmp_path, way):
    config, victim, folder = str(work.parent / "config.py"), tmp_path / "victim", tmp_path / "work"
    folder.mkdir()
    path = folder / "epoch_1.pth"
    torch.save(dict(state_dict=dict(w=torch.ones(1)), evil=Attack(victim)), path)
    (folder / "last_checkpoint").write_text(str(path))
    with pytest.raises((ValueError, RuntimeError), match=r"epoch_1\.pth"):
        if way in ("resume", "auto"):
            train(config, folder, resume=str(path) if way == "resume" else "auto")
        elif way == "test":
            build_test_runner(config, str(path), work_dir=str(folder)).test()
        elif way == "load_from":
            train(config, folder, cfg_options=dict(load_from=str(path)))
        else:
            pretrained = dict(type="Pretrained", checkpoint=str(path))
            train(config, folder, cfg_options={"model.backbone.init_cfg": pretrained})
    assert not victim.exists()
