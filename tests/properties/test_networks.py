"""Random VanillaNets under random operations: what they compute stays, or the refusal is clear."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from mmvanilla import VanillaNet, fuse_model, get_act_lambda, set_act_lambda
from mmvanilla.utils.numerics import largest, relative_difference
from tests.helpers import randomise

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies


@dataclass
class Case:
    """A network in eval mode and float64, its arguments, inputs, and outputs that must stay."""

    options: dict[str, Any]
    net: VanillaNet
    images: Tensor
    expected: tuple[Tensor, ...]

    def build(self, deploy: bool) -> VanillaNet:
        """Another network of the same arguments, with other weights."""
        net = VanillaNet(**self.options, deploy=deploy).double()
        return randomise(net, seed=7).eval()

    @property
    def can_fuse(self) -> bool:
        """Whether its norms have running statistics, and its λ is 1."""
        has_statistics = self.options["norm_cfg"]["type"] != "GN"
        return has_statistics and get_act_lambda(self.net) in (None, 1)

    @torch.no_grad()
    def look(self) -> tuple[Tensor, ...]:
        """What the network computes now."""
        return self.net(self.images)

    def check(self, step: str) -> None:
        """Hold the outputs against the expected ones."""
        difference = largest(map(relative_difference, self.expected, self.look()))
        assert difference <= 1e-9, f"{difference:.2g} after {step}"


def _pickle(case: Case) -> None:
    buffer = io.BytesIO()
    torch.save(case.net, buffer)
    buffer.seek(0)
    case.net = torch.load(buffer, weights_only=False)


def _fuse(case: Case) -> None:
    before = copy.deepcopy(case.net.state_dict())
    if not case.can_fuse:
        with pytest.raises((RuntimeError, TypeError), match="cannot fuse"):
            fuse_model(case.net)
        assert case.net.state_dict().keys() == before.keys()
        return
    fused = fuse_model(case.net)
    assert fused.deploy
    assert all(torch.equal(before[key], value) for key, value in case.net.state_dict().items())
    case.net = fused


def _switch_to_deploy(case: Case) -> None:
    if case.can_fuse:
        case.net.switch_to_deploy()
        assert case.net.deploy


def _load_into_deploy_form(case: Case) -> None:
    deploy = case.build(deploy=True)
    if case.net.deploy or case.can_fuse:
        deploy.load_state_dict(case.net.state_dict())
        case.net = deploy
        return
    before = {key: value.clone() for key, value in deploy.state_dict().items()}
    with pytest.raises((RuntimeError, TypeError), match="cannot fuse"):
        deploy.load_state_dict(case.net.state_dict())
    assert all(torch.equal(before[key], value) for key, value in deploy.state_dict().items())


def _lower_lambda(case: Case) -> None:
    set_act_lambda(case.net, 0.5)
    case.expected = case.look()


def _end_deep_training(case: Case) -> None:
    set_act_lambda(case.net, 1.0)
    case.expected = case.look()


def _train(case: Case) -> None:
    """A step of training: afterwards it computes something else, in every form."""
    case.net.train()
    optimiser = torch.optim.AdamW(case.net.parameters(), lr=1e-3)
    sum(out.square().mean() for out in case.net(case.images)).backward()
    optimiser.step()
    case.net.eval()
    case.expected = case.look()


def _change_layout(case: Case) -> None:
    case.net = case.net.to(memory_format=torch.channels_last)


OPERATIONS: tuple[Callable[[Case], None], ...] = (
    *(_pickle, _fuse, _switch_to_deploy, _load_into_deploy_form),
    *(_lower_lambda, _end_deep_training, _train, _change_layout),
)

_NORMS = (
    dict(type="BN"),
    dict(type="BN", eps=1e-3, momentum=0.3),
    dict(type="GN", num_groups=4),
)
_ACTS = ("ReLU", "GELU", "LeakyReLU", "HSwish", "SiLU", "ELU")


@st.composite
def networks(draw: Any) -> dict[str, Any]:
    """The arguments of a VanillaNet: variants, activations, norms, levels."""
    blocks = draw(st.integers(1, 5))
    dims = tuple(draw(st.sampled_from((8, 16, 24))) for _ in range(blocks + 1))
    strides = tuple(draw(st.sampled_from((1, 2))) for _ in range(blocks))
    hypothesis.assume(strides.count(2) < 5)  # of the images, nothing would be left
    stem_stride, stem_padding = draw(st.sampled_from(((4, 0), (2, 1), (3, 1))))
    levels = 1 + sum(stride > 1 for stride in strides)
    wanted = draw(st.sets(st.integers(0, levels - 1), min_size=1))
    return dict(
        arch=dict(dims=dims, strides=strides, stem_stride=stem_stride, stem_padding=stem_padding),
        in_channels=draw(st.sampled_from((1, 3, 6))),
        out_indices=tuple(sorted(wanted)),
        act_num=draw(st.integers(0, 4)),
        act_cfg=dict(type=draw(st.sampled_from(_ACTS))),
        norm_cfg=draw(st.sampled_from(_NORMS)),
        deep_training=draw(st.booleans()) or draw(st.booleans()),
        series_activation=draw(st.booleans()) or draw(st.booleans()),
    )


@pytest.mark.parametrize("examples", [15, pytest.param(600, marks=pytest.mark.exhaustive)])
def test_no_operation_changes_what_a_network_computes(examples):
    @hypothesis.settings(max_examples=examples)
    @hypothesis.given(
        options=networks(),
        operations=st.lists(st.sampled_from(OPERATIONS), min_size=2, max_size=6),
        seed=st.integers(0, 2**31),
    )
    def run(options: dict[str, Any], operations: list[Callable[[Case], None]], seed: int) -> None:
        torch.manual_seed(seed)
        net = randomise(VanillaNet(**options).double(), seed).eval()
        images = torch.randn(2, options["in_channels"], 67, 96, dtype=torch.float64)
        case = Case(options, net, images, ())
        case.expected = case.look()
        done = []
        for operation in operations:
            operation(case)
            done.append(operation.__name__.strip("_"))
            case.check(" → ".join(done))

    run()
