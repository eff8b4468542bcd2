from __future__ import annotations

import copy
import subprocess
import sys
from argparse import ArgumentParser

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from torch import nn

from mmvanilla import count_fusable, fuse_model, get_act_lambda
from mmvanilla.analysis.ablation import (
    SWITCHES,
    AblationRun,
    ablation_table,
    options_line,
    run_ablations,
)
from mmvanilla.datasets.shapes import make_shapes
from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.layers import ShortcutConv
from tests.helpers import ROOT, randomise, relative_difference

FOLDER = ROOT / "configs" / "ablations"
VARIANTS = {
    "full": dict(),
    "no_deep_training": dict(deep_training=False),
    "no_series_activation": dict(series_activation=False),
    "plain": dict(deep_training=False, series_activation=False),
    "n0": dict(act_num=0),
    "n1": dict(act_num=1),
    "n2": dict(act_num=2),
    "n4": dict(act_num=4),
    "shortcut_before_act": dict(shortcut="before_act"),
    "shortcut_after_act": dict(shortcut="after_act"),
}
DATA_SETS = ("in1k", "shapes")


def narrow(name: str, data_set: str) -> Config:
    """The config of a switch as the toolboxes' own tools make it, from the line of options."""
    cfg = Config.fromfile(FOLDER / f"vanillanet6_{data_set}.py")
    parser = ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    options = parser.parse_args(options_line(name).split()).cfg_options
    assert options == SWITCHES[name]
    cfg.merge_from_dict(options)
    cfg.model.backbone.width_mult = 1 / 64
    cfg.model.head.in_channels = 64
    cfg.model.head.num_classes = 6
    init_default_scope("mmpretrain")
    return cfg


def build(model: dict) -> nn.Module:
    from mmpretrain.registry import MODELS

    return MODELS.build(copy.deepcopy(model))


def test_each_data_set_has_one_config_and_each_variant_a_switch():
    assert {path.name for path in FOLDER.glob("*.py")} == {
        f"vanillanet6_{data}.py" for data in DATA_SETS
    }
    assert set(SWITCHES) == set(VARIANTS)


def test_an_unknown_switch_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match="unknown switch 'n5'; choose from full, no_deep_training"):
        run_ablations(["nowhere.py"], [0], str(tmp_path / "runs"), ["full", "n5"])
    assert not (tmp_path / "runs").exists()


def test_in1k_is_the_recipe_with_its_hooks_in_other_lists():
    recipe = Config.fromfile(ROOT / "configs" / "imagenet" / "vanillanet6_in1k.py").to_dict()
    ours = Config.fromfile(FOLDER / "vanillanet6_in1k.py").to_dict()
    hooks = [[*cfg["default_hooks"].values(), *cfg["custom_hooks"]] for cfg in (recipe, ours)]
    for cfg in (recipe, ours):
        del cfg["custom_hooks"], cfg["default_hooks"]
    assert recipe == ours
    assert sorted(map(repr, hooks[0])) == sorted(map(repr, hooks[1]))


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize("data_set", DATA_SETS)
@pytest.mark.parametrize("name", VARIANTS)
class TestVariant:
    def test_is_the_published_one_but_for_its_switch(self, name, data_set):
        cfg = narrow(name, data_set)
        backbone = dict(cfg.model.backbone)
        switches = {key: backbone.pop(key) for key in VARIANTS[name]}
        assert switches == VARIANTS[name]
        assert backbone == dict(type="VanillaNet", arch="6", width_mult=1 / 64, out_indices=(-1,))
        assert cfg.model.head.get("deep_training", True) == switches.get("deep_training", True)

    def test_switch_does_what_it_says(self, name, data_set):
        model = build(narrow(name, data_set).model)
        deep = VARIANTS[name].get("deep_training", True)
        assert any(isinstance(module, ConvPair) for module in model.modules()) == deep
        depthwise = {
            tuple(module.kernel_size)
            for module in model.modules()
            if isinstance(module, nn.Conv2d) and module.groups > 1
        }
        size = 2 * VARIANTS[name].get("act_num", 3) + 1
        has_series = VARIANTS[name].get("series_activation", True)
        assert depthwise == ({(size, size)} if has_series else set())
        shortcuts = sum(isinstance(module, ShortcutConv) for module in model.modules())
        assert shortcuts == (4 if name == "shortcut_before_act" else 0)

    def test_hook_matches_the_model(self, name, data_set):
        cfg = narrow(name, data_set)
        has_lambda = get_act_lambda(build(cfg.model)) is not None
        assert [hook["type"] for hook in cfg.custom_hooks] == ["DeepTrainingHook"] * has_lambda
        other = dict(in1k="EMAHook", shapes="ReseedHook")[data_set]
        assert other in [hook["type"] for hook in cfg.default_hooks.values()]

    @torch.no_grad()
    def test_fuses_exactly_as_far_as_it_can(self, name, data_set):
        cfg = narrow(name, data_set)
        model = randomise(build(cfg.model)).double().eval()
        x = torch.randn(2, 3, 40, 52, dtype=torch.float64)
        expected = model(x)
        num_fused = count_fusable(model)
        fused = fuse_model(model)
        assert num_fused > 0
        assert relative_difference(expected, fused(x)) < 1e-9
        # Nothing of the training form is left, and deploy=True builds the same.
        assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
        cfg.model.backbone.deploy = cfg.model.head.deploy = True
        deploy = build(cfg.model).double().eval()
        deploy.load_state_dict(fused.state_dict())
        assert relative_difference(expected, deploy(x)) < 1e-9
        # A shortcut before the activation fuses away; one after it stays.
        plain = build(
            dict(
                cfg.model,
                backbone={k: v for k, v in cfg.model.backbone.items() if k != "shortcut"},
            )
        )
        extra = set(deploy.state_dict()) - set(plain.state_dict())
        assert bool(extra) == (name == "shortcut_after_act")


class TestTable:
    def test_mean_and_sample_deviation_over_the_seeds(self):
        runs = [
            AblationRun("a", 0, 90.0, 90.0, 11, 1234567),
            AblationRun("b", 0, 80.0, 81.0, 5, 10),
            AblationRun("a", 1, 94.0, 93.0, 11, 1234567),
        ]
        assert ablation_table(runs).splitlines()[2:] == [
            "| a | 2 | 92.0 ± 2.8 | 91.5 ± 2.1 | 1,234,567 | 11 |",
            "| b | 1 | 80.0 | 81.0 | 10 | 5 |",
        ]


def test_what_could_not_be_told_apart_is_refused_before_the_work(tmp_path):
    path = str(tmp_path / "nothing.py")
    with pytest.raises(ValueError, match="configs nothing given twice"):
        run_ablations([path, str(tmp_path / "other" / "nothing.py")], [0], str(tmp_path))
    with pytest.raises(ValueError, match="seeds 1 given twice"):
        run_ablations([path], [0, 1, 1], str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no config at"):
        run_ablations([path], [0], str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.toolbox("mmpretrain")
def test_tool_trains_fuses_and_reports(tmp_path):
    make_shapes(tmp_path / "data", layouts=["imagenet"], num_train=12, num_val=6, image_size=48)
    data = tmp_path / "data" / "imagenet"
    (tmp_path / "tiny.py").write_text(
        f"""
_base_ = [{str(FOLDER / "vanillanet6_shapes.py")!r}]
model = dict(backbone=dict(width_mult=1 / 64), head=dict(in_channels=64))
train_dataloader = dict(batch_size=6, dataset=dict(data_root={str(data / "train")!r}))
val_dataloader = dict(dataset=dict(data_root={str(data / "val")!r}))
train_cfg = dict(max_epochs=3, val_interval=3)
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=2)]
"""
    )
    command = [sys.executable, str(ROOT / "tools" / "run_ablations.py"), str(tmp_path / "tiny.py")]
    command += ["--seeds", "0", "1", "--switches", "full", "plain"]
    command += ["--work-dir", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "tiny full, seed 0: " in done.stdout
    assert "tiny plain, seed 1: " in done.stdout
    full, plain = done.stdout.splitlines()[-2:]
    assert full.startswith("| tiny full | 2 | ") and full.endswith(" | 11 |")
    assert plain.startswith("| tiny plain | 2 | ") and plain.endswith(" | 5 |")
    missing = subprocess.run(
        [*command[:2], str(tmp_path / "nothing.py")], capture_output=True, text=True, cwd=ROOT
    )
    assert missing.returncode != 0
    assert missing.stderr.strip().splitlines()[-1].startswith("error: no config at")
