"""``DeepTrainingHook(merge=True)``: the pairs merge in the course of a training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import ReduceOnPlateauLR
from torch import Tensor

from mmvanilla import ConvPair
from mmvanilla.apis.runners import build_test_runner
from mmvanilla.engine.merging import check_merging
from mmvanilla.models.conv_pair import ConvNorm
from mmvanilla.models.merging import merge_pairs
from tests import toy_training
from tests.engine.test_deep_training_hook import ToyModel, make_runner
from tests.helpers import release

MERGE = {"custom_hooks.0.merge": True}
SINGLE = {"model.backbone.deep_training": False}
WITHOUT = """
custom_hooks = custom_hooks[1:]
"""


def train(folder: Path, name: str, options: dict, resume: Any = None, extra: str = "") -> Any:
    """Train the toy, with λ, EMA and layer decay; λ is 1 from the fourth of five epochs on."""
    config = toy_training.write_config(folder / f"{name}.py", 5, extra)
    runner = toy_training.train(
        config, folder / name, cfg_options=options, resume=resume and str(resume)
    )
    return SimpleNamespace(seen=runner.seen, folder=folder / name, runner=runner, config=config)


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def assert_equal(ours: Any, theirs: Any, path: str = "") -> None:
    if isinstance(ours, Tensor):
        assert torch.equal(ours, theirs), path
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), path
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), path
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(*pair, f"{path}.{index}")
    else:
        assert ours == theirs, path


def assert_same_end(one: Any, other: Any) -> None:
    ends = [load(run.folder / "epoch_5.pth") for run in (one, other)]
    for part in ("state_dict", "ema_state_dict", "optimizer"):
        assert_equal(*[end[part] for end in ends], part)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("merging"), "run", MERGE)


def test_pairs_merge_when_lambda_is_one_and_the_log_says_so(run):
    forms = [load(run.folder / f"epoch_{epoch}.pth")["state_dict"] for epoch in range(1, 6)]
    assert ["backbone.stem.conv.first.conv.weight" in weights for weights in forms] == [
        *[True] * 3,
        *[False] * 2,
    ]
    assert run.seen["lambdas"] == pytest.approx([0, 0, *[1 / 3] * 2, *[2 / 3] * 2, *[1] * 4])
    log = next(run.folder.glob("*/*.log")).read_text()
    assert log.count("λ is 1: 3 pairs of convolutions are merged") == 1
    assert run.seen["losses"][-1] < run.seen["losses"][0]


def test_the_optimiser_trains_what_is_there_and_the_rest_of_its_state_goes_on(run):
    model, optimizer = run.runner.model, run.runner.optim_wrapper.optimizer
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {*trained} == {*model.parameters()} and len(trained) == len({*trained})
    first = load(run.folder / "epoch_1.pth")["optimizer"]["param_groups"]
    assert len(first) == len(optimizer.param_groups)
    names = [group["group_name"] for group in first]
    assert names == [group["group_name"] for group in optimizer.param_groups]
    block = model.backbone.blocks[0].conv
    steps = {p: int(optimizer.state[p]["step"]) for p in block.parameters()}
    assert [steps[p] for p in block.parameters()] == [4, 4, 10, 10]  # weight, bias; the norm's
    assert optimizer.state[block.conv.weight]["exp_avg"].shape == block.conv.weight.shape


def test_averages_are_merged_and_go_on(run):
    ends = [load(run.folder / f"epoch_{epoch}.pth") for epoch in (4, 5)]
    for averaged, raw in [(end["state_dict"], end["ema_state_dict"]) for end in ends]:
        assert {f"module.{key}" for key in averaged} == raw.keys() - {"steps"}
        key = "backbone.stem.conv.conv.weight"
        assert 0 < (averaged[key] - raw[f"module.{key}"]).abs().mean() < averaged[key].abs().mean()
    assert not torch.equal(ends[0]["state_dict"][key], ends[1]["state_dict"][key])


@pytest.mark.parametrize("epoch", [2, 3, 4])
def test_a_resumed_run_is_the_same_bit_for_bit(run, tmp_path, epoch):
    """Before the merge, right before it, and after it."""
    resumed = train(tmp_path, "resumed", MERGE, run.folder / f"epoch_{epoch}.pth")
    assert resumed.seen["losses"] == run.seen["losses"][2 * epoch :]
    assert_same_end(resumed, run)


def test_after_the_merge_the_run_is_one_of_single_convolutions(run, tmp_path):
    """Its checkpoint is resumed by a config that knows neither pairs nor the hook."""
    last = run.folder / "epoch_4.pth"
    text = Path(run.config).read_text()
    assert "DeepTrainingHook" in text
    single = train(tmp_path, "single", SINGLE, last, extra=WITHOUT)
    assert_same_end(single, run)


@pytest.mark.parametrize("options", [{}, SINGLE])
def test_its_checkpoint_is_tested_with_configs_of_both_forms(run, tmp_path, options):
    tester = build_test_runner(
        run.config, str(run.folder / "epoch_5.pth"), work_dir=str(tmp_path), cfg_options=options
    )
    metrics = tester.test()
    release(tester)
    hub = run.runner.message_hub.log_scalars["val/accuracy"]
    assert metrics["accuracy"] == hub.current()


@pytest.mark.parametrize(
    "options",
    [
        {"model.backbone.with_cp": True},
        {"model.backbone.frozen_stages": 1},
        {
            "default_hooks.channels_last": dict(type="ChannelsLastHook"),
            "custom_hooks.1.update_buffers": True,
        },
    ],
)
def test_with(run, tmp_path, options):
    found = train(tmp_path, "found", {**MERGE, **options})
    resumed = train(tmp_path, "resumed", {**MERGE, **options}, found.folder / "epoch_3.pth")
    assert_same_end(resumed, found)
    if "model.backbone.with_cp" in options:
        assert found.seen["losses"] == run.seen["losses"]
    stem = found.runner.model.backbone.stem.conv.conv.weight
    assert stem.requires_grad == ("model.backbone.frozen_stages" not in options)
    average = next(hook.ema_model for hook in found.runner.hooks if isinstance(hook, EMAHook))
    kept = average.avg_parameters["backbone.stem.conv.conv.weight"]
    assert kept.data_ptr() == average.module.backbone.stem.conv.conv.weight.data_ptr()
    has_format = stem.is_contiguous(memory_format=torch.channels_last)
    assert has_format == ("default_hooks.channels_last" in options)


class CountPairs(Hook):
    """Counts the pairs that are there in each iteration."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.seen.append(sum(isinstance(each, ConvPair) for each in runner.model.modules()))


def test_gradients_that_are_accumulated_are_waited_for(tmp_path):
    hooks = [dict(type="DeepTrainingHook", decay_iters=4, merge=True), CountPairs()]
    wrapper = dict(optimizer=dict(type="SGD", lr=1e-3), accumulative_counts=3)
    runner = make_runner(tmp_path, hooks, optim_wrapper=wrapper)
    runner.train()
    # λ is 1 from the fifth iteration on, the second update is behind the sixth.
    assert hooks[1].seen == [2] * 6 + [0] * 6


def test_another_network_is_resumed_and_tested_in_its_merged_form(tmp_path):
    def build(name: str, **more: Any) -> Any:
        (tmp_path / name).mkdir()
        hooks = [dict(type="DeepTrainingHook", decay_epochs=1, merge=True), dict(type="EMAHook")]
        checkpoint = dict(checkpoint=dict(type="CheckpointHook", interval=1))
        return make_runner(tmp_path / name, hooks, default_hooks=checkpoint, **more)

    whole = build("whole")
    whole.train()
    assert isinstance(whole.model.head["conv"], ConvNorm)
    path = str(tmp_path / "whole" / "epoch_2.pth")
    resumed = build("resumed", load_from=path, resume=True)
    resumed.train()
    assert_equal(resumed.model.state_dict(), whole.model.state_dict())
    loaded = build("loaded", load_from=path)
    loaded.call_hook("before_run")
    loaded.load_or_resume()
    assert loaded.model.state_dict().keys() == whole.model.state_dict().keys()


def test_a_layer_that_cannot_be_merged_is_refused_at_the_start(tmp_path):
    model = ToyModel()
    model.backbone[0].first.register_forward_hook(lambda module, inputs, out: out.relu())
    hooks = [dict(type="DeepTrainingHook", decay_epochs=2, merge=True)]
    with pytest.raises(RuntimeError, match=r"cannot fuse backbone\.0: .*something else"):
        make_runner(tmp_path, hooks, model=model).train()
    assert model.seen == []


def test_what_could_not_follow_a_merge_is_refused():
    def check(model=None, optimizer=None, schedules=(), hooks=()) -> None:
        model, optimizer = model or ToyModel(), optimizer or torch.optim.SGD(model.parameters(), 1)
        runner = SimpleNamespace(model=model, param_schedulers=schedules, hooks=hooks)
        runner.optim_wrapper = SimpleNamespace(optimizer=optimizer)
        check_merging(runner)

    model, teacher = ToyModel(), type("MeanTeacherHook", (Hook,), {})
    check(model)
    with pytest.raises(TypeError, match="the whole of it in each process"):
        check(model, SimpleNamespace(consolidate_state_dict=None))
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    with pytest.raises(TypeError, match="depend on a metric"):
        check(model, optimizer, [ReduceOnPlateauLR(optimizer, "accuracy")])
    with pytest.raises(TypeError, match="averages of EMAHook"):
        check(model, optimizer, hooks=[teacher()])
    model.average = ExponentialMovingAverage(ToyModel())
    with pytest.raises(TypeError, match="averages of EMAHook"):
        check(model, optimizer)


def test_pairs_that_are_left_beside_merged_weights_are_merged_too(tmp_path):
    merged = ToyModel()
    merge_pairs(merged.backbone)
    torch.save(merged.state_dict(), tmp_path / "x.pth")
    hooks = [dict(type="DeepTrainingHook", decay_epochs=0, merge=True), CountPairs()]
    make_runner(tmp_path, hooks, load_from=str(tmp_path / "x.pth")).train()
    assert hooks[1].seen == [0] * 12


@pytest.mark.toolbox("mmpretrain")
def test_lamb_with_a_group_for_each_parameter(tmp_path):
    """As in the authors' recipe: it takes no empty group, and counts the steps of a group."""
    options = {
        **MERGE,
        "optim_wrapper.optimizer": dict(type="mmpretrain.Lamb", lr=5e-3),
        "optim_wrapper.constructor": "DefaultOptimWrapperConstructor",
        "optim_wrapper.paramwise_cfg": dict(_delete_=True, norm_decay_mult=0.0),
        "param_scheduler": [dict(type="CosineAnnealingLR", T_max=5)],
    }
    found = train(tmp_path, "found", options)
    groups = found.runner.optim_wrapper.optimizer.param_groups
    assert all(group["params"] for group in groups)
    assert {group["step"] for group in groups} == {4, 10}
    assert len({group["lr"] for group in groups}) == 1
    for epoch in (3, 4):
        path = found.folder / f"epoch_{epoch}.pth"
        assert_same_end(train(tmp_path, f"resumed{epoch}", options, path), found)


def test_lambda_does_not_rise_again_in_merged_weights(run, tmp_path):
    last = run.folder / "epoch_4.pth"
    with pytest.raises(ValueError, match="would fall from 1 to 0.8"):
        train(tmp_path, "longer", {**MERGE, "custom_hooks.0.decay_epochs": 5}, last)
    with pytest.raises(RuntimeError, match="has a λ: it is fused or merged"):
        train(tmp_path, "anew", {**MERGE, "load_from": str(last)})


def test_merged_weights_are_trained_on_by_a_config_in_training_form(run, tmp_path):
    last = run.folder / "epoch_4.pth"
    options = {
        "load_from": str(last),
        "custom_hooks": [dict(type="Record")],
    }
    found = train(tmp_path, "found", options)
    before = load(last)["state_dict"]
    moved = [
        key for key, value in found.seen["model"].items() if not torch.equal(before[key], value)
    ]
    assert {key for key in before if key.endswith(("weight", "bias"))} <= {*moved}
