"""However weights are loaded: they fit, are fused on the way in, or are refused."""

import copy
from unittest import mock

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_checkpoint, load_state_dict
from torch import nn

from mmvanilla import VanillaNet, fuse_model, get_act_lambda, set_act_lambda
from mmvanilla.models.block import VanillaBlock
from tests.helpers import TINY, randomise, relative_difference

LOADERS = {
    "torch": lambda model, weights, _path: model.load_state_dict(weights),
    "torch, not strict": lambda model, weights, _path: model.load_state_dict(weights, strict=False),
    "mmengine": lambda model, weights, _path: load_state_dict(model, weights),
    "load_checkpoint": lambda model, _weights, path: load_checkpoint(model, str(path)),
}
X = torch.randn(1, 3, 64, 64)


@pytest.fixture
def trained():
    return randomise(VanillaNet(TINY)).eval()


@pytest.fixture(params=LOADERS)
def load(request, tmp_path):
    def apply(model, weights):
        path = tmp_path / "weights.pth"
        torch.save(dict(state_dict=weights), path)
        return LOADERS[request.param](model, weights, path)

    return apply


@pytest.mark.parametrize("inside", [False, True])
def test_a_deploy_form_fuses_training_weights_on_the_way_in(trained, load, inside):
    target = deploy = VanillaNet(TINY, deploy=True).eval()
    weights = trained.state_dict()
    if inside:
        target = nn.ModuleDict(dict(backbone=deploy, neck=nn.Conv2d(2, 2, 1)))
        weights = {f"backbone.{key}": value for key, value in weights.items()}
        weights.update({"neck.weight": torch.ones(2, 2, 1, 1), "neck.bias": torch.full((2,), 7.0)})
    before = copy.deepcopy(weights)
    load(target, weights)
    assert all(torch.equal(a, b) for a, b in zip(deploy(X), fuse_model(trained)(X), strict=True))
    # The caller's weights stay what they were, and the rest of the model is loaded too.
    assert weights.keys() == before.keys()
    assert all(torch.equal(weights[key], value) for key, value in before.items())
    assert not inside or target["neck"].bias.tolist() == [7.0, 7.0]


def test_init_cfg_fuses_too_and_it_is_logged(trained, tmp_path):
    path = tmp_path / "classifier.pth"
    torch.save(dict(state_dict={f"backbone.{k}": v for k, v in trained.state_dict().items()}), path)
    init_cfg = dict(type="Pretrained", checkpoint=str(path), prefix="backbone.")
    deploy = VanillaNet(TINY, deploy=True, init_cfg=init_cfg).eval()
    deploy.init_weights()
    assert torch.equal(deploy(X)[-1], fuse_model(trained)(X)[-1])
    logger = MMLogger.get_instance("test_init_cfg_fuses_too_and_it_is_logged")
    with mock.patch.object(logger, "log") as log:
        deploy.load_state_dict(trained.state_dict())
    assert "fused weights of the training form for VanillaNet" in log.call_args.args[1]


@pytest.mark.parametrize(("before", "loaded"), [(1.0, 0.5), (0.0, 0.5), (1.0, 1.0)])
def test_it_says_where_loading_lowers_lambda(before, loaded):
    source, net = VanillaNet(TINY), VanillaNet(TINY)
    set_act_lambda(source, loaded)
    set_act_lambda(net, before)
    logger = MMLogger.get_instance("test_it_says_where_loading_lowers_lambda")
    with mock.patch.object(logger, "log") as log:
        net.load_state_dict(source.state_dict())
    assert get_act_lambda(net) == loaded
    assert log.call_count == (loaded < before)
    for call in log.call_args_list:
        assert "λ = 0.5 of these weights: go on with DeepTrainingHook" in call.args[1]


def without_one(net):
    weights = net.state_dict()
    del weights["blocks.1.conv.first.conv.weight"]
    return weights


def fading(net):
    net.blocks[0].conv.act.act_lambda = 0.5
    return net.state_dict()


def below(net):
    return {f"backbone.{key}": value for key, value in net.state_dict().items()}


# What is loaded, into what, and what is said.
WRONG = {
    "a missing weight": (without_one, dict(deploy=True), "1 tensors are missing: blocks.1"),
    "fused weights": (lambda net: fuse_model(net).state_dict(), {}, "are fused.*deploy=True"),
    "a fading λ": (fading, dict(deploy=True), "λ = 0.5"),
    "a prefix": (below, {}, "load with prefix='backbone.'"),
    "another act_num": (nn.Module.state_dict, dict(act_num=4), "1, 7, 7.*1, 9, 9.*check.*act_num"),
    "another arch": (nn.Module.state_dict, dict(width_mult=2, deploy=True), "instead of.*arch"),
    "other images": (
        nn.Module.state_dict,
        dict(in_channels=1),
        r"stem.conv.first.conv.weight \(8, 3, 4, 4\) instead of \(8, 1, 4, 4\); .*in_channels",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_fit_is_refused_and_changes_nothing(trained, load, kind):
    source, arguments, message = WRONG[kind]
    net = randomise(VanillaNet(TINY, **arguments), seed=1)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RuntimeError, match=message):
        load(net, source(trained))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_left_over_weights_are_the_callers_business(trained):
    weights = {**trained.state_dict(), "extra": torch.zeros(1)}
    with pytest.raises(RuntimeError, match='Unexpected key.*"extra"'):
        VanillaNet(TINY).load_state_dict(weights)
    VanillaNet(TINY).load_state_dict(weights, strict=False)


class Doubled(VanillaBlock):
    def forward(self, x):
        return 2 * super().forward(x)


class Scaled(VanillaNet):
    """A subclass with an argument, a constructor, a forward and layers of its own."""

    block_type = Doubled

    def __init__(self, factor, **kwargs):
        super().__init__(TINY, **kwargs)
        self.factor = factor
        self.last = nn.Conv2d(24, 24, 1)

    def forward(self, x):
        return tuple(self.last(out) if out.shape[1] == 24 else out for out in super().forward(x))


def test_a_subclass_fuses_in_its_own_form(load):
    trained, deploy = (Scaled(2, deploy=deploy, out_indices=(2, 3)) for deploy in (False, True))
    load(deploy.eval(), randomise(trained).eval().state_dict())
    for expected, found in zip(trained(X), deploy(X), strict=True):
        assert relative_difference(expected.detach(), found.detach()) < 1e-5


def test_a_subclass_without_a_training_form_refuses_its_weights(trained, load):
    class AlwaysDeploy(VanillaNet):
        def __init__(self):
            super().__init__(TINY, deploy=True)

    with pytest.raises(RuntimeError, match="training form.*cannot be built.*deploy"):
        load(AlwaysDeploy(), trained.state_dict())
    load(AlwaysDeploy(), fuse_model(trained).state_dict())


def test_a_file_in_half_precision_fuses_in_the_models_own(trained):
    weights = {key: value.half() for key, value in trained.state_dict().items()}
    rounded, deploy = VanillaNet(TINY).eval(), VanillaNet(TINY, deploy=True)
    rounded.load_state_dict(weights)
    deploy.load_state_dict(weights)
    expected = fuse_model(rounded).state_dict()
    assert all(torch.equal(expected[key], value) for key, value in deploy.state_dict().items())
