import copy
from unittest import mock

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_checkpoint, load_state_dict
from torch import nn

from mmvanilla import VanillaNet, fuse_model
from mmvanilla.models.strict_loading import StrictLoadingMixin, fuse_state_dict
from tests.helpers import TINY, randomise

LOADERS = {
    "torch": lambda model, weights, _path: model.load_state_dict(weights),
    "torch, not strict": lambda model, weights, _path: model.load_state_dict(weights, strict=False),
    "mmengine": lambda model, weights, _path: load_state_dict(model, weights),
    "load_checkpoint": lambda model, _weights, path: load_checkpoint(model, str(path)),
}


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


@pytest.mark.parametrize("prefix", ["", "model.backbone."])
def test_a_deploy_model_fuses_training_weights_on_the_way_in(trained, load, prefix):
    deploy = VanillaNet(TINY, deploy=True).eval()
    target = (
        deploy
        if not prefix
        else nn.ModuleDict(
            dict(model=nn.ModuleDict(dict(backbone=deploy, neck=nn.Conv2d(2, 2, 1))))
        )
    )
    weights = {prefix + key: value for key, value in trained.state_dict().items()}
    if prefix:
        weights["model.neck.weight"] = torch.full((2, 2, 1, 1), 7.0)
        weights["model.neck.bias"] = torch.full((2,), 7.0)
    given = dict(weights)
    load(target, weights)
    x = torch.randn(1, 3, 64, 64)
    fused = fuse_model(trained)
    assert all(torch.equal(a, b) for a, b in zip(deploy(x), fused(x), strict=True))
    # The caller's weights stay what they were, and the rest of the model is loaded too.
    assert weights.keys() == given.keys()
    assert not prefix or target["model"]["neck"].bias.tolist() == [7.0, 7.0]


def test_it_says_that_it_fused(trained):
    logger = MMLogger.get_instance("test_it_says_that_it_fused")
    with mock.patch.object(logger, "log") as log:
        VanillaNet(TINY, deploy=True).load_state_dict(trained.state_dict())
    assert "fused weights of the training form for VanillaNet" in log.call_args.args[1]


def test_init_cfg_fuses_too(trained, tmp_path):
    path = tmp_path / "classifier.pth"
    torch.save(dict(state_dict={f"backbone.{k}": v for k, v in trained.state_dict().items()}), path)
    init_cfg = dict(type="Pretrained", checkpoint=str(path), prefix="backbone.")
    deploy = VanillaNet(TINY, deploy=True, init_cfg=init_cfg).eval()
    deploy.init_weights()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(deploy(x)[-1], fuse_model(trained)(x)[-1])


def test_matching_weights_load_as_ever(trained, load):
    x = torch.randn(1, 3, 64, 64)
    same = VanillaNet(TINY).eval()
    load(same, trained.state_dict())
    assert torch.equal(same(x)[-1], trained(x)[-1])
    fused = fuse_model(trained)
    deploy = VanillaNet(TINY, deploy=True).eval()
    load(deploy, fused.state_dict())
    assert torch.equal(deploy(x)[-1], fused(x)[-1])


def test_fused_weights_do_not_fit_a_training_form(trained, load):
    weights = fuse_model(trained).state_dict()
    with pytest.raises(RuntimeError, match="are fused.*deploy=True"):
        load(VanillaNet(TINY), weights)


def test_a_fading_lambda_is_not_fused_on_the_way_in(trained):
    for block in trained.blocks:
        block.conv.act.act_lambda = 0.5
    with pytest.raises(RuntimeError, match="λ = 0.5"):
        VanillaNet(TINY, deploy=True).load_state_dict(trained.state_dict())


@pytest.mark.parametrize("deploy", [True, False])
def test_another_act_num_names_both(trained, load, deploy):
    with pytest.raises(RuntimeError, match="act_num=3.*act_num=4"):
        load(VanillaNet(TINY, act_num=4, deploy=deploy), trained.state_dict())


@pytest.mark.parametrize("deploy", [True, False])
def test_missing_weights_are_an_error_however_they_are_loaded(trained, load, deploy):
    weights = trained.state_dict()
    del weights["blocks.1.conv.first.conv.weight"]
    with pytest.raises(RuntimeError, match="are missing: "):
        load(VanillaNet(TINY, deploy=deploy), weights)


def test_weights_under_a_prefix_are_pointed_at(trained, load):
    weights = {f"backbone.{key}": value for key, value in trained.state_dict().items()}
    with pytest.raises(RuntimeError, match="prefix='backbone.'"):
        load(VanillaNet(TINY), weights)


def test_another_arch_is_an_error(trained, load):
    with pytest.raises(RuntimeError, match="instead of .* check arch"):
        load(VanillaNet(TINY, width_mult=2), trained.state_dict())


def test_left_over_weights_are_the_callers_business(trained):
    weights = {**trained.state_dict(), "extra": torch.zeros(1)}
    with pytest.raises(RuntimeError, match='Unexpected key.*"extra"'):
        VanillaNet(TINY).load_state_dict(weights)
    VanillaNet(TINY).load_state_dict(weights, strict=False)


def test_a_refusal_changes_nothing(trained):
    net = randomise(VanillaNet(TINY), seed=1)
    before = copy.deepcopy(net.state_dict())
    weights = trained.state_dict()
    del weights["stem.conv.first.conv.weight"]
    with pytest.raises(RuntimeError):
        net.load_state_dict(weights, strict=False)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_fusing_a_state_dict_equals_fusing_the_model_and_changes_neither(trained):
    weights = trained.state_dict()
    before = copy.deepcopy(weights)
    with torch.device("meta"):
        training_form = VanillaNet(TINY)
    fused = fuse_state_dict(training_form, weights)
    expected = fuse_model(trained).state_dict()
    assert fused.keys() == expected.keys()
    assert all(torch.equal(fused[key], expected[key]) for key in expected)
    assert all(torch.equal(weights[key], before[key]) for key in before)
    assert all(parameter.requires_grad for parameter in trained.parameters())


def test_fusing_a_state_dict_wants_all_of_it_and_nothing_else(trained):
    weights = trained.state_dict()
    with pytest.raises(KeyError, match="has no tensor stem.extra"):
        fuse_state_dict(VanillaNet(TINY), {**weights, "stem.extra": torch.zeros(1)})
    del weights["stem.act.conv.norm.bias"]
    with pytest.raises(KeyError, match="lack stem.act.conv.norm.bias"):
        fuse_state_dict(VanillaNet(TINY), weights)


def test_loading_does_not_enter_itself_again(trained, monkeypatch):
    entered = []
    load = StrictLoadingMixin._load_from_state_dict

    def count(self, *args, **kwargs):
        entered.append(self)
        load(self, *args, **kwargs)

    monkeypatch.setattr(StrictLoadingMixin, "_load_from_state_dict", count)
    deploy = VanillaNet(TINY, deploy=True)
    deploy.load_state_dict(trained.state_dict())
    assert entered == [deploy]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("deploy", [True, False])
@pytest.mark.parametrize("deep_training", [True, False])
@pytest.mark.parametrize("in_channels", [1, 6])
def test_another_number_of_input_channels_is_named(fused, deploy, deep_training, in_channels):
    source = VanillaNet(TINY, deep_training=deep_training, deploy=fused)
    target = VanillaNet(TINY, in_channels=in_channels, deep_training=deep_training, deploy=deploy)
    if fused and not deploy:
        with pytest.raises(RuntimeError, match="are fused"):
            target.load_state_dict(source.state_dict())
        return
    with pytest.raises(RuntimeError, match=f"images of 3 channels.*in_channels={in_channels}") as e:
        target.load_state_dict(source.state_dict())
    assert f"--in-channels {in_channels}" in str(e.value) and "check arch" not in str(e.value)
