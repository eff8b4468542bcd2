from logging import FileHandler

import pytest

from mmvanilla.apis import runners
from mmvanilla.apis.runners import build_test_runner, build_train_runner, release

MODEL = "model = dict(type='X')\n"
TRAINING = MODEL + "train_dataloader = {}\ntrain_cfg = {}\noptim_wrapper = {}\n"
TESTING = MODEL + "test_dataloader = {}\ntest_evaluator = {}\n"


@pytest.fixture
def write(tmp_path):
    def write_config(text):
        path = tmp_path / "config.py"
        path.write_text(text)
        return str(path)

    return write_config


def test_no_process_group_is_joined_before_the_data_is_found(write, monkeypatch):
    """Whoever fails after joining leaves the other processes waiting."""
    joined = []
    monkeypatch.setattr(runners.cpu_distributed, "prepare", joined.append)
    dataset = "dataset=dict(type='CocoDataset', data_root='data/nowhere/')"
    config = write(TRAINING + f"train_dataloader = dict({dataset})")
    with pytest.raises(FileNotFoundError, match="data/nowhere/ is not there"):
        build_train_runner(config, launcher="pytorch")
    assert joined == []


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


def test_a_released_runner_leaves_no_file_open(tmp_path):
    from mmengine.logging import MMLogger
    from mmengine.runner import Runner
    from torch import nn

    runner = Runner(nn.Linear(1, 1), str(tmp_path), experiment_name="released")
    files = [handler for handler in runner.logger.handlers if isinstance(handler, FileHandler)]
    assert files and all(handler.stream is not None for handler in files)
    release(runner)
    assert all(handler.stream is None for handler in files)
    assert not MMLogger.check_instance_created("released")
