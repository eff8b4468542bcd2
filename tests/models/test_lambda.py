"""λ is where the weights are: in state dicts, copies, functional calls and compiled models."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from torch import nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel

from mmvanilla import ConvPair, VanillaNet, get_act_lambda, set_act_lambda
from mmvanilla.models.act_lambda import FadingReLU
from tests.helpers import TINY, randomise


@pytest.mark.parametrize("act_lambda", [0.0, 0.25, 0.5, 1.0])
def test_it_is_the_papers_mixture(act_lambda):
    act = FadingReLU()
    act.act_lambda = act_lambda
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    expected = (1 - act_lambda) * x.relu() + act_lambda * x
    found = act(x * 1.0)
    assert torch.allclose(found, expected, rtol=0, atol=1e-15)
    gradients = [torch.autograd.grad(out.sum(), x)[0] for out in (expected, found)]
    assert torch.equal(*gradients)


def test_at_the_end_it_costs_nothing():
    act = FadingReLU()
    x = torch.randn(3, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t), lambda t: t):
        assert act(x) is x
    assert saved == []


@pytest.mark.parametrize("read", [get_state_dict, nn.Module.state_dict])
@pytest.mark.parametrize("load", [load_state_dict, nn.Module.load_state_dict])
def test_it_travels_with_the_weights_and_is_1_where_they_have_none(read, load):
    source, target = ConvPair(3, 4, 1), ConvPair(3, 4, 1)
    source.act.act_lambda = 0.1
    weights = read(source)
    load(target, weights)
    assert target.act.act_lambda == 0.1
    assert weights.pop("act.act_lambda").dtype == torch.float64
    load(target, weights)
    assert target.act.act_lambda == 1.0


def test_only_setting_changes_it():
    model = ConvPair(3, 4, 1)
    set_act_lambda(model, 0.1)
    with torch.inference_mode(), torch.device("meta"):
        inside = ConvPair(3, 4, 1)
    others = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        AveragedModel(model, use_buffers=True).module,
        ExponentialMovingAverage(model, update_buffers=True).module,
    ]
    model.half().double()
    model.act.act_lambda.fill_(0.5)
    model.state_dict()["act.act_lambda"].fill_(0.5)
    assert [get_act_lambda(other) for other in (model, *others, inside)] == [0.1] * 5 + [1.0]
    set_act_lambda(model, 0.9)
    assert [get_act_lambda(other) for other in others] == [0.1] * 4
    for value in (-0.1, 1.1, float("nan"), torch.tensor(2.0)):
        with pytest.raises(ValueError, match="from 0 .* to 1"):
            model.act.act_lambda = value
        with pytest.raises(ValueError, match="from 0 .* to 1"):
            set_act_lambda(model, float(value))
    assert get_act_lambda(model) == 0.9


def test_different_ones_in_one_model_are_an_error():
    model = nn.Sequential(ConvPair(3, 4, 1), ConvPair(4, 4, 1), nn.ReLU())
    assert set_act_lambda(model, 0.5) == 2
    model[1].act.act_lambda = 0.25
    with pytest.raises(RuntimeError, match=r"different λ: 0\.25, 0\.5"):
        get_act_lambda(model)
    assert get_act_lambda(model[2]) is None and set_act_lambda(model[2], 0.5) == 0


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


@pytest.mark.parametrize("with_cp", [False, True])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_training_follows_in_two_compilations(backend, with_cp):
    """λ < 1 is an input of the compiled code; λ = 1 is the second piece of code."""
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    net = randomise(VanillaNet(dict(dims=(8, 8), strides=(2,)), with_cp=with_cp)).train()
    twin = copy.deepcopy(net)
    compiled = torch.compile(twin, backend=backend)
    x = torch.randn(2, 3, 32, 32)
    numbers = []
    for act_lambda in (*[step / 10 for step in range(11)], 1.0):
        set_act_lambda(net, act_lambda)
        set_act_lambda(twin, act_lambda)
        for form in (net, compiled):
            form.zero_grad()
            form(x)[-1].square().mean().backward()
        for expected, found in zip(net.parameters(), twin.parameters(), strict=True):
            if expected.grad is not None:
                torch.testing.assert_close(found.grad, expected.grad)
        numbers.append(counters["stats"]["unique_graphs"])
    torch.testing.assert_close(dict(twin.state_dict()), dict(net.state_dict()))
    if hasattr(torch.compiler, "is_compiling"):  # torch 2.1 runs these layers eagerly
        assert numbers[:10] == [1] * 10
        assert numbers[-1] <= 2  # on Python 3.13.0 the count stays at 1
