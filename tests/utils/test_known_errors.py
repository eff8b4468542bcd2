"""Errors are provoked, not quoted: what torch and mmengine say today must be recognised."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.registry import HOOKS, MODELS
from torch import nn

import mmvanilla
from mmvanilla.models.vanillanet import VanillaNet
from mmvanilla.utils.known_errors import OUR_MODULES, explain_known, find_channel_mismatch


def message_of(call):
    with pytest.raises(Exception) as caught:
        call()
    return str(caught.value)


def put_into_regions():
    torch.zeros(4, 256, 7, 7)[torch.tensor([0, 1])] = torch.zeros(2, 64, 7, 7)


CHANNELS = {
    "convolution": lambda: nn.Conv2d(256, 8, 1)(torch.zeros(1, 64, 8, 8)),
    "transposed": lambda: nn.ConvTranspose2d(256, 8, 2)(torch.zeros(1, 64, 8, 8)),
    "linear": lambda: nn.Linear(256, 8)(torch.zeros(1, 64)),
    "batch norm": lambda: nn.BatchNorm2d(256)(torch.zeros(2, 64, 8, 8)),
    "group norm": lambda: nn.GroupNorm(8, 256)(torch.zeros(2, 64, 8, 8)),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("kind", CHANNELS)
def test_other_channels(kind, device):
    if (kind, device) == ("transposed", "meta"):
        pytest.skip("the meta device accepts any number of channels there")
    with torch.device(device):
        message = message_of(CHANNELS[kind])
    expected, found = find_channel_mismatch(message)
    if expected is not None:  # the meta device does not always say which
        assert (expected, found) == (256, 64)
        assert "was built for 256 channels, and gets 64" in explain_known(message).what
    assert "in_channels" in explain_known(message).remedy


def test_regions_of_other_channels():
    assert find_channel_mismatch(message_of(put_into_regions)) == (256, 64)


TOO_SMALL = {
    "pooling": lambda: nn.MaxPool2d(2)(torch.zeros(1, 8, 1, 1)),
    "convolution": lambda: nn.Conv2d(8, 8, 4)(torch.zeros(1, 8, 2, 2)),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("kind", TOO_SMALL)
def test_too_small_an_image(kind, device):
    with torch.device(device):
        explanation = explain_known(message_of(TOO_SMALL[kind]))
    assert "too small" in explanation.what and "larger images" in explanation.remedy


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_batch_of_one_value(device):
    with torch.device(device):
        message = message_of(lambda: nn.BatchNorm2d(8)(torch.zeros(1, 8, 1, 1)))
    assert "batch_size" in explain_known(message).remedy


def test_an_unknown_type():
    explanation = explain_known(message_of(lambda: MODELS.build(dict(type="NoSuchNet"))))
    assert explanation.what == "unknown type 'NoSuchNet'"
    assert "spelling" in explanation.remedy


@pytest.mark.parametrize("name", OUR_MODULES)
def test_a_type_of_ours_without_our_import(name):
    message = message_of(lambda: MODELS.build(dict(type="NoSuchNet"))).replace("NoSuchNet", name)
    module = OUR_MODULES[name]
    modules = "'mmvanilla'" if module == "mmvanilla" else f"'mmvanilla', '{module}'"
    assert f"custom_imports = dict(imports=[{modules}]" in explain_known(message).remedy


def test_the_types_of_ours_are_all_there():
    """By the text of the modules: some of them need a toolbox to be imported."""
    root = Path(mmvanilla.__file__).parent
    decorated = r"^@[A-Z_]+\.register_module\(\)\nclass (\w+)"
    called = r"^ *[A-Z_]+\.register_module\(_NAME, module=(\w+)\)"
    found = {}
    for path in root.rglob("*.py"):
        module = ".".join(("mmvanilla", *path.relative_to(root).with_suffix("").parts))
        text = path.read_text(encoding="utf-8")
        names = re.findall(f"{decorated}|{called}", text, flags=re.MULTILINE)
        found.update({"".join(name): module for name in names})
        assert len(names) == text.count(".register_module("), module
    assert set(found) == set(OUR_MODULES)
    for name, module in OUR_MODULES.items():
        if module == "mmvanilla":
            assert name in mmvanilla.__all__
        else:
            assert module in (found[name], "mmvanilla.cls_head")  # the head's has an older name


@pytest.mark.parametrize("name", ["depth", "num_stages", "style", "widen_factor"])
def test_an_argument_left_from_another_backbone(name):
    explanation = explain_known(message_of(lambda: VanillaNet("6", **{name: 1})))
    assert explanation.what == f"VanillaNet does not take {name!r}"
    assert "_delete_=True" in explanation.remedy


def test_a_misspelt_argument_and_the_old_pretrained():
    assert "spelling" in explain_known(message_of(lambda: VanillaNet("6", act_nun=3))).remedy
    remedy = explain_known(message_of(lambda: VanillaNet("6", pretrained="x.pth"))).remedy
    assert "init_cfg=dict(type='Pretrained'" in remedy


def test_missing_arguments_and_types():
    assert "VanillaNet needs 'arch'" in explain_known(message_of(VanillaNet)).what
    assert "no type" in explain_known(message_of(lambda: HOOKS.build(dict(a=1)))).what


@pytest.mark.parametrize("text", ["", "disk full", "out_indices must be ascending levels"])
def test_other_errors_are_left_alone(text):
    assert explain_known(text) is None and find_channel_mismatch(text) is None
