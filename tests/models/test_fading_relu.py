"""λ is where the weights are: in state dicts, copies, averages and functional calls."""

from __future__ import annotations

import copy
import gc
import pickle
from unittest import mock

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.checkpoint import load_state_dict
from torch import nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel

from mmvanilla import ConvPair, VanillaNet, get_act_lambda, set_act_lambda
from mmvanilla.models.fading_relu import _FOLLOWERS, FadingReLU
from tests.helpers import TINY, randomise

try:
    from hypothesis import given
    from hypothesis import strategies as st
except ImportError:
    pytest.skip("hypothesis is not installed", allow_module_level=True)

PAIRS = 5


class TimmLikeAverage(nn.Module):
    """As timm averages: whatever the state dict holds is overwritten."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(model)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        pairs = zip(self.module.state_dict().values(), model.state_dict().values(), strict=True)
        for average, value in pairs:
            average.copy_(0.9 * average + 0.1 * value)


AVERAGES = {
    "torch": (AveragedModel, "update_parameters"),
    "torch, buffers too": (lambda m: AveragedModel(m, use_buffers=True), "update_parameters"),
    "mmengine": (ExponentialMovingAverage, "update_parameters"),
    "mmengine, buffers too": (
        lambda m: ExponentialMovingAverage(m, update_buffers=True),
        "update_parameters",
    ),
    "timm": (TimmLikeAverage, "update"),
}


@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize("wrap", [lambda m: m, nn.Sequential, torch.compile])
def test_an_averaged_copy_has_the_lambda_of_its_source(kind, wrap):
    build, update = AVERAGES[kind]
    model = VanillaNet(TINY)
    set_act_lambda(model, 0.0)
    averaged = build(wrap(model))
    for value in (0.0, 0.1, 0.7, 1.0):
        set_act_lambda(model, value)
        for _ in range(3):
            getattr(averaged, update)(wrap(model))
        assert get_act_lambda(averaged) == value
        assert float(averaged.state_dict()[lambda_key(averaged)]) == value
    # Setting that of the average leaves the source's alone.
    set_act_lambda(averaged, 0.5)
    assert get_act_lambda(model) == 1.0


def lambda_key(model: nn.Module) -> str:
    return next(key for key in model.state_dict() if key.endswith("stem.conv.act.act_lambda"))


def test_other_copies_are_on_their_own():
    model = ConvPair(3, 4, 1)
    set_act_lambda(model, 0.2)
    others = [
        copy.deepcopy(model),
        nn.ModuleDict(dict(module=copy.deepcopy(model))),
        nn.Sequential(copy.deepcopy(model)),
        pickle.loads(pickle.dumps(model)),
    ]
    set_act_lambda(model, 0.9)
    assert [get_act_lambda(other) for other in others] == [0.2] * 4


def test_averages_keep_no_model_alive():
    model = ConvPair(3, 4, 1)
    average = AveragedModel(model)
    before = len(_FOLLOWERS)
    del model
    gc.collect()
    assert len(_FOLLOWERS) == before - 1
    set_act_lambda(average, 0.5)  # nothing left to follow


def test_functional_call_takes_the_whole_state_dict():
    net = randomise(VanillaNet(TINY)).eval()
    other = randomise(VanillaNet(TINY), seed=1).eval()
    set_act_lambda(other, 0.25)
    x = torch.randn(1, 3, 64, 64)
    expected, own = other(x), net(x)
    found = functional_call(net, other.state_dict(), (x,))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    # Afterwards everything is as it was.
    assert get_act_lambda(net) == 1.0
    assert all(torch.equal(a, b) for a, b in zip(net(x), own, strict=True))


def test_functional_call_on_the_meta_device_and_under_grad():
    pair = randomise(ConvPair(3, 4, 1)).eval()
    set_act_lambda(pair, 0.5)
    x = torch.randn(2, 3, 4, 4)
    with torch.device("meta"):
        empty = ConvPair(3, 4, 1).eval()
    assert torch.equal(functional_call(empty, pair.state_dict(), (x,)), pair(x))
    parameters = {name: value.detach() for name, value in pair.named_parameters()}
    rest = {key: value for key, value in pair.state_dict().items() if key not in parameters}

    def loss(parameters):
        return functional_call(pair, {**rest, **parameters}, (x,)).square().mean()

    found = torch.func.grad(loss)(parameters)
    pair(x).square().mean().backward()
    for name, parameter in pair.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_it_cannot_be_written_behind_its_back():
    act = FadingReLU()
    with pytest.raises(RuntimeError, match="[Ii]nference"):
        act.act_lambda.fill_(0.5)
    for value in (-0.1, 1.1, float("nan"), torch.tensor(2.0)):
        with pytest.raises(ValueError, match="from 0 .* to 1"):
            act.act_lambda = value
    assert float(act.act_lambda) == 1.0


@pytest.mark.parametrize("load", [load_state_dict, nn.Module.load_state_dict])
@pytest.mark.parametrize("act_lambda", [0.0, 0.25, 1.0])
def test_loading_a_fading_model_is_said_once(load, act_lambda):
    source = VanillaNet(TINY)
    set_act_lambda(source, act_lambda)
    logger = MMLogger.get_instance("test_loading_a_fading_model_is_said_once")
    for _ in range(2):
        target = nn.Sequential(VanillaNet(TINY), ConvPair(3, 4, 1))
        weights = {f"0.{key}": value for key, value in source.state_dict().items()}
        weights.update({f"1.{key}": value for key, value in target[1].state_dict().items()})
        with mock.patch.object(logger, "log") as log:
            load(target, weights)
        messages = [call.args[1] for call in log.call_args_list if "λ" in call.args[1]]
        assert len(messages) == (act_lambda < 1)
        for message in messages:
            assert f"λ = {act_lambda:g}," in message
            assert "DeepTrainingHook" in message and "mmvanilla.set_act_lambda(model, 1)" in message


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["set", "load", "half", "double", "copy", "pickle", "call", "average", "update", "meta"]
        ),
        st.sampled_from([0.0, 0.1, 1 / 3, 0.7, 1.0]),
    ),
    max_size=12,
)


@given(OPERATIONS)
def test_whatever_happens_lambda_is_what_was_set_last(operations):
    model: nn.Module = ConvPair(2, 2, 1)
    averages: list[nn.Module] = []
    expected = 1.0
    for name, value in operations:
        if name == "set":
            set_act_lambda(model, value)
            expected = value
        elif name == "load":
            source = ConvPair(2, 2, 1)
            source.act.act_lambda = value
            model.load_state_dict(source.state_dict())
            expected = value
        elif name in ("half", "double"):
            getattr(model, name)()
        elif name == "copy":
            model, averages = copy.deepcopy(model), []
        elif name == "pickle":
            model, averages = pickle.loads(pickle.dumps(model)), []
        elif name == "call":
            other = {"act.act_lambda": torch.tensor(value)}
            x = torch.ones(1, 2, 1, 1, dtype=next(model.parameters()).dtype)
            if x.dtype != torch.float16:
                functional_call(model.eval(), other, (x,))
        elif name == "average":
            averages.append(AveragedModel(model, use_buffers=value > 0.5))
        elif name == "update":
            for average in averages:
                if next(average.module.parameters()).dtype == next(model.parameters()).dtype:
                    average.update_parameters(model)
        else:
            with torch.device("meta"):
                assert model.state_dict()["act.act_lambda"].device.type == "cpu"
        assert get_act_lambda(model) == expected
        assert float(model.state_dict()["act.act_lambda"]) == expected
        assert model.state_dict()["act.act_lambda"].dtype == torch.float64
        assert all(get_act_lambda(average) == expected for average in averages)
