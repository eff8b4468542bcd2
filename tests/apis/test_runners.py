import pytest
from mmengine.config import Config

from mmvanilla.apis.config import load_config
from mmvanilla.apis.data_checks import require_data
from mmvanilla.apis.runners import build_test_runner, build_train_runner


@pytest.fixture
def write(tmp_path):
    def write_config(text):
        path = tmp_path / "config.py"
        path.write_text(text)
        return str(path)

    return write_config


def test_options_are_merged_over_the_file(write):
    cfg = load_config(write("optimizer = dict(lr=1.0, weight_decay=2.0)"), {"optimizer.lr": 3.0})
    assert cfg.optimizer == dict(lr=3.0, weight_decay=2.0)


def test_a_config_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r"no config at nowhere\.py"):
        load_config("nowhere.py")


@pytest.mark.parametrize(
    "dataset",
    [
        "dict(type='CocoDataset', data_root='data/coco/', ann_file='train.json')",
        "dict(type='RepeatDataset', dataset=dict(type='CocoDataset', data_root='data/coco/'))",
        "dict(type='ConcatDataset', datasets=[dict(type='X', data_root='data/coco/')])",
    ],
)
def test_data_that_is_not_there_says_where_it_belongs(write, dataset):
    config = write(f"train_dataloader = dict(dataset={dataset})")
    with pytest.raises(FileNotFoundError, match="data/coco/ is not there.*`make demo` needs no"):
        build_train_runner(config)


def test_missing_shapes_come_with_the_command_that_makes_them():
    dataset = dict(type="CocoDataset", data_root="data/somewhere/shapes/coco/")
    cfg = Config(dict(val_dataloader=dict(dataset=dataset)))
    with pytest.raises(FileNotFoundError, match=r"tools/make_shapes.py data/somewhere/shapes$"):
        require_data(cfg, "config.py", "val_dataloader")


def test_a_missing_annotation_file_is_named(tmp_path):
    dataset = dict(type="CocoDataset", data_root=str(tmp_path), ann_file="train.json")
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    with pytest.raises(FileNotFoundError, match=r"train\.json is not there"):
        require_data(cfg, "config.py", "train_dataloader")
    (tmp_path / "train.json").write_text("{}")
    require_data(cfg, "config.py", "train_dataloader", "val_dataloader")


def test_data_behind_an_address_is_not_looked_for():
    dataset = dict(type="CocoDataset", data_root="s3://bucket/coco/")
    assert require_data(Config(dict(a=dict(dataset=dataset))), "config.py", "a") is None


def test_scaling_the_learning_rate_needs_a_base_batch_size(write):
    with pytest.raises(ValueError, match="base_batch_size"):
        build_train_runner(write("model = dict()"), auto_scale_lr=True)


def test_a_checkpoint_that_is_not_there_is_named(write):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at nowhere\.pth"):
        build_test_runner(write("model = dict()"), "nowhere.pth")


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
        build_test_runner(write("model = dict()"), str(checkpoint), **options)
