"""Pure-Python configs: inherited from anywhere, trained, and read back."""

import importlib
import math

import pytest
import torch
from mmengine.registry import MODELS

from mmvanilla.apis.config import load_config
from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.apis.runners import build_train_runner
from mmvanilla.datasets.shapes import make_shapes
from mmvanilla.models.fusion import FusableLayer
from tests.helpers import CONFIGS

# name: toolbox, layout of the data, module that is inherited.
NAMES = {
    "maskrcnn": ("mmdet", "coco", "shapes_detector"),
    "upernet": ("mmseg", "ade20k", "shapes_segmenter"),
    "vanillanet": ("mmpretrain", "imagenet", "shapes_classifier"),
}
# A project of one's own: another folder, and another base than ours.
THEIRS = """\
from mmengine.config import read_base
from mmvanilla.models.vanillanet import VanillaNet

with read_base():
    from mmvanilla.configs.{module} import *

model.update(backbone=dict(type=VanillaNet, arch="6", width_mult=1 / 32, out_indices={levels}))
train_cfg.update(max_epochs=1, val_interval=9)
"""


@pytest.fixture(params=NAMES)
def name(request):
    toolbox = NAMES[request.param][0]
    pytest.importorskip(toolbox)
    importlib.import_module(f"{toolbox}.models")
    return request.param


def test_ours_inherit_what_a_user_inherits(name):
    toolbox, _, module = NAMES[name]
    cfg = load_config(str(CONFIGS / "pure_python" / f"{name}_pure_python.py"))
    assert cfg.default_scope == toolbox
    assert isinstance(cfg.model.type, type) and cfg.model.type.__module__.startswith(toolbox)
    text = (CONFIGS / "pure_python" / f"{name}_pure_python.py").read_text()
    assert f"from mmvanilla.configs.{module} import *" in text


def described(node):
    """A part of a config without the way in which its types are written."""
    if isinstance(node, dict):
        return {key: described(value) for key, value in node.items() if key != "_scope_"}
    if isinstance(node, list | tuple):
        return [described(value) for value in node]
    # A class is dumped by its full name.
    return node.rpartition(".")[2] if isinstance(node, str) else node


@pytest.mark.toolbox("mmdet")
def test_the_detector_and_its_schedule_are_those_of_the_text_config():
    ours, theirs = (
        load_config(str(CONFIGS / folder / f"maskrcnn_{name}.py")).to_dict()
        for folder, name in (("pure_python", "pure_python"), ("shapes", "vanillanet_shapes"))
    )
    for entry in ("model", "train_cfg", "optim_wrapper", "param_scheduler", "custom_hooks"):
        assert described(ours[entry]) == described(theirs[entry]), entry
    for name in ("channels_last", "visualization"):
        hooks = [described(cfg["default_hooks"][name]) for cfg in (ours, theirs)]
        assert hooks[0] == hooks[1]
    assert ours["visualizer"]["min_side"] == theirs["visualizer"]["min_side"]


@pytest.mark.slow
def test_a_config_of_a_user_trains_and_is_read_back(name, tmp_path, monkeypatch):
    _, layout, module = NAMES[name]
    monkeypatch.chdir(tmp_path)
    make_shapes("data/shapes", layouts=(layout,), num_train=12, num_val=6, image_size=64)
    levels = "(-1,)" if layout == "imagenet" else "(0, 1, 2, 3)"
    (tmp_path / "mine.py").write_text(THEIRS.format(module=module, levels=levels))
    channels = [16, 32, 64, 128]
    options = {
        "maskrcnn": {"model.neck.in_channels": channels},
        "upernet": {
            "model.decode_head.in_channels": channels,
            "model.auxiliary_head.in_channels": 64,
        },
        "vanillanet": {"model.head.in_channels": 128},
    }[name]
    runner = build_train_runner(
        "mine.py",
        work_dir="out",
        cfg_options={**options, "train_dataloader.batch_size": 6},
    )
    runner.train()
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)
    weights = torch.load("out/epoch_1.pth", weights_only=False)["state_dict"]
    assert any(key.startswith("backbone.stem") for key in weights)
    # What is written beside the checkpoints builds the same model, in its deploy form too.
    again = load_config("out/mine.py")
    assert again.train_cfg.max_epochs == 1
    expected = {key: value.shape for key, value in weights.items()}
    found = MODELS.build(again.model).state_dict()
    assert {key: value.shape for key, value in found.items()} == expected
    deploy_config(again).dump("deployed.py")
    deployed = MODELS.build(load_config("deployed.py").model)
    assert not any(isinstance(module, FusableLayer) for module in deployed.modules())
