"""A data set that reads other images than its split says is found."""

import inspect

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmvanilla.checks.config_check import quick_check
from mmvanilla.checks.splits import check_splits
from tests.helpers import ROOT

pytestmark = pytest.mark.toolbox("mmpretrain")


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmpretrain")


def loaders(kind="FashionMNIST", **val):
    def loader(**dataset):
        return dict(dataset=dict(type=kind, data_root="data", **dataset))

    return Config(
        dict(
            default_scope="mmpretrain",
            train_dataloader=loader(split="train"),
            val_dataloader=loader(**val),
        )
    )


@pytest.mark.parametrize("kind", ["FashionMNIST", "mmpretrain.MNIST", "class"])
def test_the_test_split_without_test_mode_reads_training_images(kind):
    from mmpretrain.datasets import MNIST

    kind = MNIST if kind == "class" else kind
    (finding,) = check_splits(loaders(kind, split="test"))
    assert finding.status == "fault"
    assert "val_dataloader" in finding.text and "reads the training images" in finding.text
    assert finding.remedy == "set test_mode=True there"
    assert check_splits(loaders(kind, split="test", test_mode=True)) == []
    assert check_splits(loaders(kind, split="train")) == []  # held-out training images
    (finding,) = check_splits(loaders(kind, split="train", test_mode=True))
    assert "reads the test images" in finding.text


def test_other_data_sets_look_at_their_split():
    """By inspection: only MNIST and what inherits from it decide by ``test_mode``."""
    from mmpretrain.registry import DATASETS

    wrong = set()
    for name, kind in DATASETS.module_dict.items():
        # StanfordCars sets test_mode itself, from its split.
        if not {"split", "test_mode"} <= set(inspect.signature(kind).parameters):
            continue
        source = inspect.getsource(kind.load_data_list)
        if "self.test_mode" in source and "self.split" not in source:
            wrong.add(name)
    assert wrong == {"MNIST", "FashionMNIST"}
    assert check_splits(loaders("CIFAR10", split="test")) == []


def test_training_starts_with_this_check():
    cfg = Config.fromfile(ROOT / "configs" / "small" / "vanillanet_fashion_mnist.py")
    assert not [item for item in quick_check(cfg) if item.subject == "split"]
    cfg.val_dataloader.dataset.pop("test_mode")
    assert [item.subject for item in quick_check(cfg) if item.status == "fault"] == ["split"]
