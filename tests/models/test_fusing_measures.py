"""Each layer is measured while it is fused: what its weights do not say is refused, by name."""

from __future__ import annotations

import copy
import types

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from mmvanilla import ConvPair, VanillaNet, fuse_model
from mmvanilla.models.conv_pair import ConvNorm
from tests.helpers import TINY, randomise, relative_difference

IMAGES = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Doubled(ConvPair):
    """A subclass with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class ActivatedNorm(nn.BatchNorm2d):
    """A norm with an activation inside, as InPlaceABN."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(super().forward(x), 0.99)


class ClippedNorm(nn.BatchNorm2d):
    """An activation that acts on large values alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-50, 50)


def replace_forward_inside(pair: ConvPair) -> None:
    conv = pair.first.conv
    conv.forward = types.MethodType(lambda self, x: self._conv_forward(x, self.weight, None), conv)


def change_a_small_channel(pair: ConvPair) -> None:
    """One channel is a million times smaller than the others, and wrong."""
    factors = torch.ones(6, 1, 1)
    factors[2] = 1.001
    for parameter in pair.second.norm.parameters():
        parameter.data[2] *= 1e-6
    pair.second.register_forward_hook(lambda module, args, out: out * factors.to(out))


WRONG = {
    "weights that are not finite": lambda pair: pair.second.norm.running_var.fill_(torch.nan),
    "replaced forward of an inner part": replace_forward_inside,
    "subclass with its own forward": lambda pair: setattr(pair, "__class__", Doubled),
    "norm with an activation": lambda pair: setattr(pair.first.norm, "__class__", ActivatedNorm),
    "norm that clips": lambda pair: setattr(pair.first.norm, "__class__", ClippedNorm),
    "hook": lambda pair: pair.register_forward_hook(lambda module, args, out: 1.001 * out),
    "hook inside": lambda pair: pair.first.register_forward_hook(lambda m, args, out: 1.001 * out),
    "pre-hook inside": lambda pair: pair.second.conv.register_forward_pre_hook(
        lambda module, args: (args[0].relu(),)
    ),
    "one small channel": change_a_small_channel,
}


def network(pair: nn.Module) -> nn.Module:
    return nn.ModuleDict(
        dict(backbone=nn.Sequential(nn.Conv2d(4, 4, 1), pair), head=ConvNorm(6, 2, 1))
    )


def assert_refused(model: nn.Module, message: str = "something else") -> None:
    """Refused by name, in a copy and in place, and the model stays as it was."""
    kinds = [(name, type(module)) for name, module in model.named_modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for inplace in (False, True):
        with pytest.raises(RuntimeError, match=rf"backbone\.1.*{message}"):
            fuse_model(model, inplace=inplace)
    assert kinds == [(name, type(module)) for name, module in model.named_modules()]
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_the_weights_do_not_say_is_refused(change):
    model = randomise(network(ConvPair(4, 6, 3, padding=1))).eval()
    fuse_model(model)
    change(model["backbone"][1])
    assert_refused(model, "(something else|cannot be run|nan)")


@pytest.mark.parametrize("part", ["", "first", "second.norm", "first.norm", "act"])
def test_training_mode_of_any_part_is_refused_in_its_own_words(part):
    model = randomise(network(ConvPair(4, 6, 1))).eval()
    model["backbone"][1].get_submodule(part).train()
    assert_refused(model, "training mode.*model.eval")


# What computes the weights of a convolution, or passes on what goes through.
RIGHT = {
    "weight norm": lambda pair: weight_norm(pair.first.conv),
    "spectral norm": lambda pair: spectral_norm(pair.second.conv),
    "weight norm, parametrized": lambda pair: parametrizations.weight_norm(pair.first.conv),
    "spectral norm, parametrized": lambda pair: parametrizations.spectral_norm(pair.second.conv),
    "pruning": lambda pair: prune.l1_unstructured(pair.first.conv, "weight", 0.5),
    "pruning of a norm": lambda pair: prune.random_unstructured(pair.first.norm, "weight", 0.5),
    "an observer": lambda pair: pair.first.register_forward_hook(lambda module, args, out: None),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("change", RIGHT.values(), ids=RIGHT)
@torch.no_grad()
def test_computed_weights_are_those_of_now(change, inplace):
    model = randomise(nn.Sequential(ConvPair(4, 6, 3)))
    change(model[0])
    images = IMAGES.float()
    model.train()(images)
    for parameter in model.parameters():  # trained on; weights that were computed are stale now
        parameter.add_(0.3 * torch.rand_like(parameter))
    expected = copy.deepcopy(model.eval())(images)
    fused = fuse_model(model, inplace=inplace)
    assert type(fused[0]) is nn.Conv2d
    assert relative_difference(expected, fused(images)) < 1e-5


@torch.no_grad()
def test_a_shared_layer_is_fused_once_and_stays_shared():
    shared = ConvPair(4, 4, 1)
    model = randomise(nn.ModuleDict(dict(a=nn.Sequential(shared), b=shared))).double().eval()
    expected = model["b"](model["a"](IMAGES))
    fused = fuse_model(model)
    assert fused["a"][0] is fused["b"]
    assert relative_difference(expected, fused["b"](fused["a"](IMAGES))) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_trained_extremes_are_not_refused(dtype, scale):
    """Dead channels, statistics that cancel, huge and tiny gammas: rounding is no difference.

    What float16 cannot hold is refused, and can be fused in another type.
    """
    model = randomise(VanillaNet(TINY)).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var[0] = 0.0
                module.running_mean[1] = 1e4
                module.weight[1:3] = torch.tensor([1e-8, 0.0])
                module.bias[2] = 0.0
                module.weight.mul_(scale)
    if dtype is torch.float16 and scale >= 1:
        with pytest.raises(RuntimeError, match="weights would be too large for torch.float16"):
            fuse_model(model.to(dtype))
        return
    fused = fuse_model(model.to(dtype))
    assert all(weight.isfinite().all() for weight in fused.parameters())
    assert fused.deploy and {weight.dtype for weight in fused.parameters()} == {dtype}


@pytest.mark.parametrize(
    "context",
    [
        lambda: torch.autocast("cpu", torch.bfloat16),
        torch.inference_mode,
        torch.enable_grad,
        lambda: torch.device("meta"),
    ],
    ids=["autocast", "inference_mode", "enable_grad", "default device"],
)
def test_what_is_switched_on_around_fusing_changes_nothing(context):
    model = randomise(VanillaNet(TINY)).eval()
    expected = fuse_model(model).state_dict()
    state = torch.get_rng_state()
    with context():
        found = fuse_model(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(expected[key], value) for key, value in found.state_dict().items())
    found.train()(torch.randn(2, 3, 64, 64))[-1].sum().backward()
