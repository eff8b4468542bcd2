"""Pairs merge into the single convolutions of ``deep_training=False``, exact in eval mode."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmvanilla import ConvPair, VanillaNet, count_fusable, fuse_model, set_act_lambda
from mmvanilla.models.conv_pair import ConvNorm
from mmvanilla.models.merging import merge_pairs
from tests.helpers import TINY, randomise, relative_difference

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def net(**changes: Any) -> VanillaNet:
    return randomise(VanillaNet(TINY, **changes))


def outputs(model: nn.Module) -> list[torch.Tensor]:
    with torch.no_grad():
        return [*copy.deepcopy(model).double().eval()(IMAGES.double())]


@pytest.mark.parametrize("options", [{}, dict(frozen_stages=1, with_cp=True)])
def test_merging_keeps_the_outputs_and_gives_the_network_without_deep_training(options):
    model = net(**options).train()
    expected, mode = outputs(model), model.stem.training
    norms = {id(m) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(merge_pairs(model)) == 5
    for own, other in zip(expected, outputs(model), strict=True):
        assert relative_difference(own, other) < 1e-6
    single = VanillaNet(TINY, deep_training=False, **options).train()
    assert [*model.state_dict()] == [*single.state_dict()]
    assert str(model) == str(single)
    # The outer norms are the same modules, and each part trains, or is frozen, as it was.
    assert {id(m) for m in model.modules() if isinstance(m, nn.BatchNorm2d)} < norms
    assert model.stem.training is mode
    trained = {name for name, each in single.named_parameters() if each.requires_grad}
    assert {name for name, each in model.named_parameters() if each.requires_grad} == trained
    fused = fuse_model(model.eval())
    assert relative_difference(outputs(fused)[-1], expected[-1]) < 1e-5
    assert not merge_pairs(model)


def test_a_merged_weight_has_the_size_that_the_optimiser_kept():
    model = net().double()
    pair = model.blocks[0].conv
    pair.first.conv.weight.data *= 50
    pair.second.norm.running_var *= 1e-7  # where eps counts
    before, expected = pair.second.conv.weight.detach().clone(), outputs(model)
    statistics = pair.second.norm.running_var.clone()
    merge_pairs(model)
    merged = model.blocks[0].conv
    sizes = [weight.flatten(1).square().mean(1) for weight in (before, merged.conv.weight)]
    torch.testing.assert_close(*sizes)
    assert not torch.allclose(merged.norm.running_var, statistics)
    assert max(map(relative_difference, outputs(model), expected)) < 1e-9


def test_in_training_it_goes_on_where_it_was():
    """A norm takes its batch's statistics, so that size and bias before it play no part."""
    model = net().double().train()
    with torch.no_grad():
        for module in model.modules():  # the inner norms of a batch are those of eval mode
            if isinstance(module, ConvPair):
                module.first.norm.eval()
        expected = copy.deepcopy(model)(IMAGES.double())
        merge_pairs(model)
        found = model(IMAGES.double())
    assert max(map(relative_difference, found, expected)) < 1e-6


@pytest.mark.parametrize("kind", [dict(bias=False), dict(norm_cfg=None), dict(last_norm=False)])
def test_a_pair_without_a_last_norm_becomes_the_plain_convolution_of_its_deploy_form(kind):
    settings: dict = dict(kernel_size=3, padding=1, groups=2, mid_channels=16, **kind)
    model = randomise(nn.Sequential(ConvPair(4, 8, **settings))).double()
    images = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    expected = model.eval()(images)
    merge_pairs(model)
    assert type(model[0]) is nn.Conv2d
    assert str(model[0]) == str(ConvPair(4, 8, **settings, deploy=True))
    torch.testing.assert_close(model(images), expected)


def test_a_layer_in_two_places_stays_one():
    pair = ConvPair(4, 4, 1)
    model = randomise(nn.ModuleDict(dict(a=pair, b=nn.Sequential(pair))))
    assert len(merge_pairs(model)) == 1
    assert model["a"] is model["b"][0] and isinstance(model["a"], ConvNorm)


def test_averages_get_the_sizes_of_the_model():
    model, average = net(), randomise(VanillaNet(TINY), seed=1)
    rows = [pair.second.conv.weight for pair in (model.stem.conv, average.stem.conv)]
    rows = [weight.detach().flatten(1).square().mean(1) for weight in rows]
    expected = outputs(average)
    merge_pairs(average, merge_pairs(model))
    assert count_fusable(average) == count_fusable(model)
    assert max(map(relative_difference, outputs(average), expected)) < 1e-6
    found = average.stem.conv.conv.weight.detach().flatten(1).square().mean(1)
    assert not torch.allclose(found, rows[0]) and not torch.allclose(found, rows[1])


class TestRefusals:
    def test_lambda(self):
        model = net()
        set_act_lambda(model, 0.5)
        with pytest.raises(RuntimeError, match=r"λ = 0\.5"):
            merge_pairs(model)

    def test_a_norm_without_statistics(self):
        model = VanillaNet(TINY, norm_cfg=dict(type="GN", num_groups=2))
        with pytest.raises(TypeError, match=r"^stem\.conv: .*GroupNorm without running statistics"):
            merge_pairs(model)

    def test_a_layer_that_computes_something_else(self):
        model = net()
        model.blocks[2].conv.first.register_forward_hook(lambda module, inputs, out: out.relu())
        with pytest.raises(RuntimeError, match=r"cannot fuse blocks\.2\.conv: .*something else"):
            merge_pairs(model)


def mmengines(model: nn.Module, weights: dict, path: Any) -> None:
    torch.save(weights, path)
    load_checkpoint(model, str(path))


@pytest.mark.parametrize(
    "load",
    [
        lambda model, weights, path: model.load_state_dict(weights),
        lambda model, weights, path: load_state_dict(model, weights, strict=True),
        mmengines,
    ],
)
@pytest.mark.parametrize("form", [{}, dict(deep_training=False), dict(deploy=True)])
def test_merged_weights_load_in_each_form(load, form, tmp_path):
    model = net()
    merge_pairs(model)
    other = VanillaNet(TINY, **form)
    parameters = {*other.parameters()}
    load(other, model.state_dict(), tmp_path / "x.pth")
    assert max(map(relative_difference, outputs(other), outputs(model))) < 1e-5
    assert {*other.parameters()} <= parameters  # so that an optimiser that has them trains them


def test_init_cfg_takes_merged_weights_into_a_training_form(tmp_path):
    model = net()
    merge_pairs(model)
    torch.save(model.state_dict(), tmp_path / "x.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "x.pth"))
    other = VanillaNet(TINY, init_cfg=init_cfg)
    other.init_weights()
    assert all(torch.equal(model.state_dict()[key], v) for key, v in other.state_dict().items())


def test_weights_of_pairs_do_not_fit_a_network_without_them():
    with pytest.raises(RuntimeError, match="check arch and deep_training"):
        VanillaNet(TINY, deep_training=False).load_state_dict(net().state_dict())


@pytest.mark.parametrize("key", ["0.weight", "0.conv.weight"])
def test_a_pair_of_any_network_refuses_weights_of_a_single_convolution(key, tmp_path):
    with pytest.raises(RuntimeError, match="^0: these weights are of a single convolution"):
        mmengines(nn.Sequential(ConvPair(2, 2, 1)), {key: torch.zeros(2, 2, 1, 1)}, tmp_path / "x")
