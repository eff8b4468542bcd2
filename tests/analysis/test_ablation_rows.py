"""The rows of the ablations: those of the configs, and those of a user's config."""

from __future__ import annotations

import copy
from argparse import ArgumentParser
from functools import cache

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from torch import nn

from mmvanilla import count_fusable, fuse_model, get_act_lambda
from mmvanilla.analysis.ablation_rows import (
    Row,
    choose_rows,
    options_line,
    paper_switches,
    rows_of,
)
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
# The n of the full networks; on small images, the row of the paper's n is in the place of n1.
FULL_N = {"in1k": 3, "fashion_mnist": 1}
VARIANTS_OF = {
    "in1k": VARIANTS,
    "fashion_mnist": {
        **{name: VARIANTS[name] for name in VARIANTS if name != "n1"},
        "n3": dict(act_num=3),
    },
}
CASES = [(data_set, name) for data_set in VARIANTS_OF for name in VARIANTS_OF[data_set]]
# The width of the tests, the channels of the head and of the images, and a hook that must stay.
DATA_SETS = {
    "in1k": (1 / 64, 64, 3, "EMAHook"),
    "fashion_mnist": (1 / 4, 32, 1, "ReseedHook"),
}
OTHERS = ("resnet18_fashion_mnist", "alexnet_fashion_mnist")
MINIMAL = "model = dict(type='A', depth=1)\ntrain_cfg = dict(max_epochs=3)\n"


@cache
def config_and_rows(data_set: str) -> tuple[Config, dict[str, Row]]:
    path = FOLDER / f"vanillanet6_{data_set}.py"
    return Config.fromfile(path), {row.switch: row for row in rows_of(str(path))}


@cache
def loaded(name: str) -> dict[str, Config]:
    """The config of each row, which nobody may change."""
    return {row.switch: row.load() for row in rows_of(str(FOLDER / f"{name}.py"))}


def narrow(name: str, data_set: str) -> Config:
    """The config of a row as the toolboxes' own tools make it, from the line of options."""
    original, rows = config_and_rows(data_set)
    cfg = copy.deepcopy(original)
    parser = ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    options = parser.parse_args(options_line(rows[name].options).split()).cfg_options
    assert options == rows[name].options
    cfg.merge_from_dict(options)
    cfg.model.backbone.width_mult, cfg.model.head.in_channels = DATA_SETS[data_set][:2]
    cfg.model.head.num_classes = 6
    init_default_scope("mmpretrain")
    return cfg


def build(model: dict) -> nn.Module:
    from mmpretrain.registry import MODELS

    return MODELS.build(copy.deepcopy(model))


def test_each_config_is_known_and_has_the_papers_rows():
    names = {f"vanillanet6_{data}.py" for data in DATA_SETS} | {f"{name}.py" for name in OTHERS}
    assert {path.name for path in FOLDER.glob("*.py")} == names
    assert set(paper_switches()) == set(VARIANTS)
    for data_set, variants in VARIANTS_OF.items():
        rows = config_and_rows(data_set)[1]
        options = {name: rows[name].options for name in variants}
        if data_set == "fashion_mnist":
            assert options.pop("n3") == {"model.backbone.act_num": 3}
            options["n1"] = {"model.backbone.act_num": 1}
        assert options == paper_switches()


def test_in1k_is_the_recipe_with_its_hooks_in_other_lists():
    recipe = Config.fromfile(ROOT / "configs" / "imagenet" / "vanillanet6_in1k.py").to_dict()
    ours = Config.fromfile(FOLDER / "vanillanet6_in1k.py").to_dict()
    hooks = [[*cfg["default_hooks"].values(), *cfg["custom_hooks"]] for cfg in (recipe, ours)]
    for cfg in (recipe, ours):
        del cfg["custom_hooks"], cfg["default_hooks"]
    del ours["ablations"]
    assert recipe == ours
    assert sorted(map(repr, hooks[0])) == sorted(map(repr, hooks[1]))


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize(("data_set", "name"), CASES)
class TestVariant:
    def test_is_the_published_one_but_for_its_switch(self, name, data_set):
        cfg = narrow(name, data_set)
        full = narrow("full", data_set)
        backbone = dict(cfg.model.backbone)
        expected = VARIANTS_OF[data_set][name]
        switches = {key: backbone.pop(key) for key in expected}
        assert switches == expected
        rest = {key: value for key, value in full.model.backbone.items() if key not in expected}
        assert backbone == rest
        assert full.model.backbone.get("act_num", 3) == FULL_N[data_set]
        assert backbone["type"] == "VanillaNet"
        assert cfg.model.head.get("deep_training", True) == switches.get("deep_training", True)

    def test_switch_does_what_it_says(self, name, data_set):
        model = build(narrow(name, data_set).model)
        variant = VARIANTS_OF[data_set][name]
        deep = variant.get("deep_training", True)
        assert any(isinstance(module, ConvPair) for module in model.modules()) == deep
        depthwise = {
            tuple(module.kernel_size)
            for module in model.modules()
            if isinstance(module, nn.Conv2d) and module.groups > 1
        }
        size = 2 * variant.get("act_num", FULL_N[data_set]) + 1
        has_series = variant.get("series_activation", True)
        assert depthwise == ({(size, size)} if has_series else set())
        shortcuts = sum(isinstance(module, ShortcutConv) for module in model.modules())
        assert shortcuts == (4 if name == "shortcut_before_act" else 0)

    def test_hook_matches_the_model(self, name, data_set):
        cfg = narrow(name, data_set)
        has_lambda = get_act_lambda(build(cfg.model)) is not None
        assert [hook["type"] for hook in cfg.custom_hooks] == ["DeepTrainingHook"] * has_lambda
        other = DATA_SETS[data_set][3]
        assert other in [hook["type"] for hook in cfg.default_hooks.values()]

    @torch.no_grad()
    def test_fuses_exactly_as_far_as_it_can(self, name, data_set):
        cfg = narrow(name, data_set)
        model = randomise(build(cfg.model)).double().eval()
        x = torch.randn(2, DATA_SETS[data_set][2], 40, 52, dtype=torch.float64)
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


class TestFashionMnist:
    """The rows that are not the paper's."""

    def test_each_schedule_of_lambda_differs_from_the_full_one_and_ends_in_time(self):
        rows = loaded("vanillanet6_fashion_mnist")
        epochs = rows["full"].max_epochs
        found = {}
        for name, cfg in rows.items():
            if not cfg.custom_hooks:
                continue
            (hook,) = cfg.custom_hooks
            length = cfg.train_cfg.max_epochs
            assert hook.get("begin", 0) + hook.decay_epochs < length, name
            if name == "full" or name.startswith("lambda_"):
                assert length == epochs
                found[name] = tuple(sorted((key, str(value)) for key, value in hook.items()))
        assert len(set(found.values())) == len(found) == 6

    def test_longer_ones_are_the_same_network_on_another_schedule(self):
        rows = loaded("vanillanet6_fashion_mnist")
        for of in ("full", "no_deep_training"):
            cfg, standard = rows[f"{of}_twice_as_long"], rows[of]
            epochs = cfg.train_cfg.max_epochs
            assert epochs == cfg.train_cfg.val_interval == 2 * standard.max_epochs
            assert cfg.default_hooks.checkpoint.interval == epochs
            assert cfg.param_scheduler[1].end == epochs and cfg.model == standard.model
            for hook, other in zip(cfg.custom_hooks, standard.custom_hooks, strict=True):
                assert hook.decay_epochs == 2 * other.decay_epochs

    @pytest.mark.toolbox("mmpretrain")
    @pytest.mark.parametrize("name", OTHERS)
    @torch.no_grad()
    def test_other_networks_with_and_without_pairs(self, name):
        import mmvanilla.analysis.alexnet  # noqa: F401

        init_default_scope("mmpretrain")
        sizes = {}
        for switch, cfg in loaded(name).items():
            model = randomise(build(cfg.model)).double().eval()
            pairs = sum(isinstance(module, ConvPair) for module in model.modules())
            single = switch == "no_deep_training"
            assert (pairs == 0) == single and (cfg.custom_hooks == []) == single
            x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
            fused = fuse_model(model)
            assert relative_difference(model(x), fused(x)) < 1e-9
            sizes[switch] = sum(param.numel() for param in fused.parameters())
        # Once fused, both forms are the same network.
        assert set(sizes) == {"full", "no_deep_training"} and len(set(sizes.values())) == 1


class TestRowsOfAConfig:
    def write(self, tmp_path, text="", name="mine.py"):
        path = tmp_path / name
        path.write_text(MINIMAL + text)
        return str(path)

    def test_without_rows_of_its_own_it_has_the_papers(self, tmp_path):
        rows = rows_of(self.write(tmp_path))
        assert {row.switch: row.options for row in rows} == paper_switches()
        assert rows[0].name == "mine full"

    def test_its_own_rows_replace_them(self, tmp_path):
        (row,) = rows_of(self.write(tmp_path, 'ablations = {"deep": {"model.depth": 7}}'))
        assert (row.switch, row.load().model.depth) == ("deep", 7)
        assert row.load({"train_cfg.max_epochs": 9}).train_cfg.max_epochs == 9

    @pytest.mark.parametrize("given", ["[]", "{}", "dict(a=1)", "'full'", "dict(a=['x=1'])"])
    def test_rows_that_are_no_table_are_refused(self, tmp_path, given):
        with pytest.raises(ValueError, match=r"ablations must be a dict of rows.*found.*; write"):
            rows_of(self.write(tmp_path, f"ablations = {given}"))

    def test_a_class_in_a_row_is_refused(self, tmp_path):
        text = "ablations = dict(a={'model.type': dict})"
        with pytest.raises(ValueError, match=r"mine.py, row 'a' of ablations: .*as a type by its"):
            rows_of(self.write(tmp_path, text))

    def test_the_digest_knows_what_decides_a_result(self, tmp_path):
        def content(text):
            return rows_of(self.write(tmp_path, text))[0].content

        first = content("seed = 1\n")
        # Names, texts, testing and the other rows do not matter.
        same = "other = 2\nwork_dir = 'x'\nlog_level = 'ERROR'\ntest_cfg = dict(x=1)\n"
        assert content(f"{same}ablations = dict(full={{}}, b={{}})") == first
        assert content("optim_wrapper = dict(optimizer=dict(lr=1))") != first

    def test_switches_are_taken_from_each_config_that_has_them(self, tmp_path):
        first = self.write(tmp_path, "ablations = dict(a={}, b={})", "first.py")
        second = self.write(tmp_path, "ablations = dict(b={}, c={})", "second.py")
        rows = choose_rows([first, second], ["b", "c"])
        assert [row.name for row in rows] == ["first b", "second b", "second c"]
        with pytest.raises(ValueError, match="unknown switch 'd'; choose from a, b, c"):
            choose_rows([first, second], ["a", "d"])

    def test_what_could_not_be_told_apart_or_read_is_refused(self, tmp_path):
        path = self.write(tmp_path)
        (tmp_path / "other").mkdir()
        other = self.write(tmp_path / "other")
        with pytest.raises(ValueError, match="configs mine given twice"):
            choose_rows([path, other])
        with pytest.raises(ValueError, match="switches full given twice"):
            choose_rows([path], ["full", "full"])
        with pytest.raises(FileNotFoundError, match="no config at"):
            choose_rows([str(tmp_path / "nothing.py")])
        wrong = self.write(tmp_path, 'ablations = {"a": {"model.type.0": 7}}', "wrong.py")
        with pytest.raises(ValueError, match="do not fit"):
            choose_rows([wrong])
