import copy
from unittest import mock

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_checkpoint, load_state_dict
from torch import nn

from mmvanilla import VanillaNet, fuse_model
from tests.helpers import TINY, randomise, relative_difference

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


class Scaled(VanillaNet):
    """A subclass with an argument, a constructor and a forward of its own."""

    def __init__(self, factor, **kwargs):
        super().__init__(TINY, **kwargs)
        self.factor = factor
        self.last = nn.Conv2d(24, 24, 1)

    def forward(self, x):
        return tuple(self.last(out) if out.shape[1] == 24 else out for out in super().forward(x))


class OtherBlocks(VanillaNet):
    """A subclass whose layers are others than those of a VanillaNet."""

    def __init__(self, arch, deploy=False):
        super().__init__(arch, deploy=deploy)
        for block in self.blocks:
            if not deploy:
                block.conv.first.norm.eps = 0.1
            block.act.act = nn.SiLU()


class AlwaysDeploy(VanillaNet):
    """A subclass that has no training form."""

    def __init__(self):
        super().__init__(TINY, deploy=True)


@pytest.mark.parametrize(
    "build",
    [
        lambda deploy: Scaled(2, deploy=deploy, out_indices=(2, 3)),
        lambda deploy: OtherBlocks(TINY, deploy=deploy),
        lambda deploy: VanillaNet(TINY, shortcut="before_act", act_num=1, deploy=deploy),
    ],
)
def test_a_subclass_fuses_in_its_own_form(build, load):
    trained, deploy = randomise(build(False)).eval(), build(True).eval()
    load(deploy, trained.state_dict())
    x = torch.randn(1, 3, 64, 64)
    for expected, found in zip(trained(x), deploy(x), strict=True):
        assert relative_difference(expected.detach(), found.detach()) < 1e-5
    again = build(True).eval()
    load(again, deploy.state_dict())
    assert torch.equal(again(x)[-1], deploy(x)[-1])


def test_a_subclass_without_a_training_form_refuses_its_weights(trained, load):
    with pytest.raises(RuntimeError, match="training form.*cannot be built.*deploy"):
        load(AlwaysDeploy(), trained.state_dict())
    load(AlwaysDeploy(), fuse_model(trained).state_dict())


def test_a_file_in_half_precision_fuses_in_the_models_own(trained):
    weights = {key: value.half() for key, value in trained.state_dict().items()}
    rounded = VanillaNet(TINY).eval()
    rounded.load_state_dict(weights)
    deploy = VanillaNet(TINY, deploy=True)
    deploy.load_state_dict(weights)
    expected = fuse_model(rounded).state_dict()
    assert all(torch.equal(expected[key], value) for key, value in deploy.state_dict().items())


def test_fusing_on_the_way_in_leaves_the_weights(trained):
    weights = trained.state_dict()
    before = copy.deepcopy(weights)
    VanillaNet(TINY, deploy=True).load_state_dict(weights)
    assert all(torch.equal(weights[key], before[key]) for key in before)
    assert all(parameter.requires_grad for parameter in trained.parameters())


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
