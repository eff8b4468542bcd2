from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmvanilla import DeepTrainingHook, get_act_lambda
from mmvanilla.models.act_lambda import SCHEDULES, cosine_lambda, linear_lambda
from mmvanilla.models.conv_pair import ConvPair

NUM_BATCHES = 3


class Numbers(Dataset):
    metainfo: dict = {}

    def __len__(self) -> int:
        return 2 * NUM_BATCHES

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(index))


class ToyModel(BaseModel):
    """Two pairs in places far apart, as a backbone and a head are; remembers each step's λ."""

    def __init__(self, deep: bool = True) -> None:
        super().__init__()
        layer = ConvPair if deep else nn.Conv2d
        self.backbone = nn.Sequential(layer(3, 4, 3, padding=1))
        self.head = nn.ModuleDict(dict(conv=layer(4, 2, 1)))
        self.seen: list[float | None] = []

    def forward(self, inputs, data_samples=None, mode: str = "tensor"):
        self.seen.append(get_act_lambda(self))
        out = self.head["conv"](self.backbone(torch.stack(list(inputs))))
        return dict(loss=out.pow(2).mean()) if mode == "loss" else out

    def train_step(self, data, optim_wrapper):
        loss, log = self.parse_losses(self(data, mode="loss"))
        optim_wrapper.update_params(loss)
        return log


def make_runner(tmp_path: Path, hooks: list, *, model=None, **overrides) -> Runner:
    settings = dict(
        model=model or ToyModel(),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            dataset=Numbers(),
            sampler=dict(type="DefaultSampler", shuffle=True),
        ),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=1e-3)),
        train_cfg=dict(by_epoch=True, max_epochs=4),
        custom_hooks=hooks,
        default_hooks=dict(logger=dict(type="LoggerHook", interval=1)),
        randomness=dict(seed=0),
        experiment_name=f"{tmp_path.name}_{len(list(tmp_path.iterdir()))}",
    )
    return Runner(**{**settings, **overrides}, cfg=Config(dict(randomness=dict(seed=0))))


class TestSchedules:
    def test_linear_is_e_over_E_and_not_E_over_e(self):
        assert [linear_lambda(e / 4) for e in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]

    def test_cosine_follows_its_formula(self):
        for e in range(5):
            expected = (1 - math.cos(math.pi * e / 4)) / 2
            assert cosine_lambda(e / 4) == pytest.approx(expected, abs=1e-15)

    @pytest.mark.parametrize("schedule", SCHEDULES.values())
    def test_ends_are_exact_and_it_only_rises(self, schedule):
        values = [schedule(step / 100) for step in range(-5, 120)]
        assert values[0] == 0.0
        assert values[105:] == [1.0] * len(values[105:])
        assert values == sorted(values)
        assert 0.0 < schedule(0.01) < schedule(0.99) < 1.0


class TestHookArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(), "one of decay_epochs and decay_iters"),
            (dict(decay_epochs=2, decay_iters=2), "one of decay_epochs and decay_iters"),
            (dict(decay_epochs=-1), "decay_epochs must be at least 0, found -1"),
            (dict(decay_iters=-1), "at least 0"),
            (dict(decay_epochs=2, begin=-1), "begin must be at least 0, found -1"),
            (dict(decay_epochs=2, schedule="step"), "linear, cosine"),
            (dict(decay_iters=2, by_epoch=True), "give decay_epochs"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            DeepTrainingHook(**arguments)

    @pytest.mark.parametrize("length", [2.5, "2", True])
    def test_refuses_lengths_that_are_no_whole_numbers(self, length):
        with pytest.raises(TypeError, match="whole number"):
            DeepTrainingHook(decay_epochs=length)
        for begin in (length, None):
            with pytest.raises(TypeError, match="begin must be a whole number"):
                DeepTrainingHook(decay_epochs=2, begin=begin)


class TestHook:
    def train(self, tmp_path, model=None, hooks=(), **arguments):
        runner = make_runner(
            tmp_path, [DeepTrainingHook(**arguments), *hooks], model=model or ToyModel()
        )
        runner.train()
        return runner

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (dict(decay_epochs=2), [0.0] * 3 + [0.5] * 3 + [1.0] * 6),
            (
                dict(decay_epochs=3, schedule="cosine"),
                [0.0] * 3 + [0.25] * 3 + [0.75] * 3 + [1.0] * 3,
            ),
            (dict(decay_epochs=2, by_epoch=False), [min(i / 6, 1.0) for i in range(12)]),
            (dict(decay_iters=5), [min(i / 5, 1.0) for i in range(12)]),
            (dict(begin=1, decay_epochs=2), [0.0] * 6 + [0.5] * 3 + [1.0] * 3),
            (
                dict(begin=1, decay_epochs=2, by_epoch=False),
                [min(max(i - 3, 0) / 6, 1.0) for i in range(12)],
            ),
            (dict(begin=4, decay_iters=5), [min(max(i - 4, 0) / 5, 1.0) for i in range(12)]),
            (dict(begin=2, decay_epochs=0), [0.0] * 6 + [1.0] * 6),
            (dict(decay_epochs=0), [1.0] * 12),
            (dict(decay_iters=0), [1.0] * 12),
        ],
    )
    def test_lambda_of_each_iteration(self, tmp_path, arguments, expected):
        model = ToyModel()
        model.backbone[0].act.act_lambda = 0.3  # whatever it was
        assert self.train(tmp_path, model=model, **arguments).model.seen == pytest.approx(expected)

    def test_resumed_with_another_batch_size(self, tmp_path):
        """λ is a matter of epochs, also where it rises within them."""
        hook = dict(type="DeepTrainingHook", decay_epochs=4, by_epoch=False)
        keeping = dict(checkpoint=dict(type="CheckpointHook", interval=1))
        make_runner(tmp_path, [hook], default_hooks=keeping).train()
        loader = dict(batch_size=3, dataset=Numbers(), sampler=dict(type="DefaultSampler"))
        start = dict(load_from=str(tmp_path / "epoch_2.pth"), resume=True)
        resumed = make_runner(tmp_path, [hook], train_dataloader=loader, **start)
        resumed.train()
        assert resumed.model.seen == [0.5, 0.625, 0.75, 0.875]
        with pytest.raises(ValueError, match="would fall from 0.41"):
            make_runner(tmp_path, [dict(hook, decay_epochs=5)], **start).train()

    def test_a_graph_of_one_lambda_is_refused(self, tmp_path):
        runner = make_runner(tmp_path, [DeepTrainingHook(decay_epochs=2)])
        runner.cfg.efficient_conv_bn_eval = ["backbone"]
        with pytest.raises(RuntimeError, match="leave that out"):
            runner.train()

    def test_loop_that_counts_iterations(self, tmp_path):
        runner = make_runner(
            tmp_path,
            [DeepTrainingHook(decay_iters=4)],
            train_cfg=dict(by_epoch=False, max_iters=7),
            train_dataloader=dict(
                batch_size=2, dataset=Numbers(), sampler=dict(type="InfiniteSampler")
            ),
        )
        runner.train()
        assert runner.model.seen == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]

    @pytest.mark.parametrize("lengths", [dict(decay_epochs=4), dict(begin=1, decay_epochs=0)])
    def test_epochs_in_a_loop_that_counts_iterations(self, tmp_path, lengths):
        runner = make_runner(
            tmp_path,
            [DeepTrainingHook(**lengths)],
            train_cfg=dict(by_epoch=False, max_iters=7),
        )
        with pytest.raises(ValueError, match="give decay_iters"):
            runner.train()

    def test_nothing_has_a_lambda(self, tmp_path):
        with pytest.raises(RuntimeError, match="no module of ToyModel has a λ.*ConvPair"):
            self.train(tmp_path, model=ToyModel(deep=False), decay_epochs=2)

    def test_warns_when_the_training_ends_before_the_decay(self, tmp_path):
        runner = self.train(tmp_path, decay_epochs=4)
        assert get_act_lambda(runner.model) == 0.75
        assert "ends at λ = 0.75" in Path(runner.log_dir, f"{runner.timestamp}.log").read_text()

    def test_logs_with_the_losses(self, tmp_path):
        runner = self.train(tmp_path, decay_epochs=2)
        log = Path(runner.log_dir, f"{runner.timestamp}.log").read_text()
        lines = [line for line in log.splitlines() if "Epoch(train)" in line]
        assert len(lines) == 12
        assert all("loss:" in line and "act_lambda:" in line for line in lines)
        assert "act_lambda: 0.0000" in lines[0]
        assert "act_lambda: 0.5000" in lines[3]
        assert "act_lambda: 1.0000" in lines[-1]
        scalars = Path(runner.log_dir, "vis_data", "scalars.json").read_text()
        assert '"act_lambda": 0.5' in scalars

    @pytest.mark.parametrize("update_buffers", [False, True])
    def test_averaged_model_has_the_lambda_of_the_moment(self, tmp_path, update_buffers):
        ema = dict(type="EMAHook", update_buffers=update_buffers)
        runner = make_runner(
            tmp_path,
            [DeepTrainingHook(decay_epochs=2), ema],
            default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1)),
        )
        runner.train()
        for epoch, expected in enumerate([0.0, 0.5, 1.0, 1.0], start=1):
            saved = torch.load(tmp_path / f"epoch_{epoch}.pth", weights_only=False)
            # EMAHook writes the averaged weights as state_dict.
            averaged, raw = saved["state_dict"], saved["ema_state_dict"]
            assert float(averaged["head.conv.act.act_lambda"]) == expected
            assert float(raw["module.head.conv.act.act_lambda"]) == expected
        resumed = make_runner(
            tmp_path,
            [DeepTrainingHook(decay_epochs=2), copy.copy(ema)],
            load_from=str(tmp_path / "epoch_1.pth"),
            resume=True,
            train_cfg=dict(by_epoch=True, max_epochs=2),
        )
        resumed.train()
        averages = [hook.ema_model for hook in resumed.hooks if hasattr(hook, "ema_model")]
        assert [get_act_lambda(model) for model in averages] == [0.5]
