"""conv_cfg=dict(type='ConvPair') in every backbone, neck and head that takes one: right or refused.

Run with ``-m exhaustive`` for all of them; the default run takes those that were wrong before.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmvanilla import fuse_model
from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.deploy.comparison import first_mismatch
from mmvanilla.models.fusion import FusableLayer
from mmvanilla.utils.numerics import largest, relative_difference
from tests.helpers import randomise
from tests.pair_networks import CASES, FORK_ONLY, IGNORED, NOT_RUN, REFUSED, Case, Network, networks

pytestmark = [pytest.mark.toolbox(name) for name in ("mmdet", "mmseg", "mmpretrain")]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}

# Each of these was wrong, or is easily so.
HARD = (
    "mmdet-backbones-Res2Net",
    "mmdet-dense_heads-ATSSHead",
    "mmdet-dense_heads-FCOSHead",
    "mmdet-dense_heads-RetinaSepBNHead",
    "mmdet-roi_heads-FCNMaskHead",
    "mmdet-necks-FPN",
    "mmseg-backbones-CGNet",
    "mmseg-backbones-MobileNetV3",
    "mmseg-decode_heads-PointHead",
    "mmseg-decode_heads-UPerHead",
    "mmpretrain-backbones-RepVGG",
    "mmpretrain-backbones-ResNet",
)


def tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output.clone()] if output.is_floating_point() else []
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [tensor for item in output for tensor in tensors(item)]
    return []


def cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype)
    if isinstance(value, list | tuple):
        return type(value)(cast(item, dtype) for item in value)
    return value


@torch.no_grad()
def outputs(model: nn.Module, case: Case) -> list[Tensor]:
    torch.manual_seed(0)  # some draw as they run
    return tensors(model(*cast(case.inputs(), case.dtype)))


def build(cfg: Config, network: Network) -> nn.Module:
    with DefaultScope.overwrite_default_scope(network.toolbox):
        model = MODELS.build(copy.deepcopy(cfg.model))
    model.train(False)
    return model.to(CASES[network.toolbox][network.name].dtype)


def difference(expected: list[Tensor], found: list[Tensor]) -> float:
    assert expected
    return largest(relative_difference(*pair) for pair in zip(expected, found, strict=True))


def check(network: Network) -> str:
    """'right', or 'ignored' where no pair is inside; raises what a user sees where it is refused.

    Asserts that the fused network and the one built by the deploy config compute what the pairs
    did, and that the latter takes the weights strictly.
    """
    case = CASES[network.toolbox][network.name]
    tolerance = TOLERANCE[case.dtype]
    plain_cfg = Config(dict(model=dict(type=network.cls, **copy.deepcopy(case.args))))
    assert outputs(build(plain_cfg, network), case)  # it is the pairs that refuse, not the case

    cfg = copy.deepcopy(plain_cfg)
    cfg.model.conv_cfg = dict(type="ConvPair")
    model = build(cfg, network)
    with torch.no_grad():
        for parameter in model.parameters():  # some come uninitialised
            parameter.uniform_(-0.5, 0.5)
    randomise(model)
    if not any(isinstance(layer, FusableLayer) for layer in model.modules()):
        return "ignored"
    expected = outputs(model, case)

    fused = fuse_model(model)
    assert difference(expected, outputs(fused, case)) < tolerance
    with DefaultScope.overwrite_default_scope(network.toolbox):
        deploy_cfg = deploy_config(cfg)
    deployed = build(deploy_cfg, network)
    deployed.load_state_dict(fused.state_dict(), strict=True)
    assert first_mismatch(fused, deployed) is None
    assert difference(expected, outputs(deployed, case)) < tolerance
    return "right"


def test_every_network_that_takes_a_conv_cfg_has_an_entry():
    found = {(network.toolbox, network.name) for network in networks()}
    entries = {
        (toolbox, name)
        for table in (CASES, NOT_RUN)
        for toolbox, names in table.items()
        for name in names
    }
    assert found <= entries
    assert entries - found <= FORK_ONLY


def right_or_refused(network: Network) -> None:
    refusal = REFUSED[network.toolbox].get(network.name)
    if refusal:
        with pytest.raises(Exception, match=refusal):
            check(network)
    else:
        ignored = network.name in IGNORED[network.toolbox]
        assert check(network) == ("ignored" if ignored else "right")


RUN = [network for network in networks() if network.name not in NOT_RUN[network.toolbox]]


@pytest.mark.parametrize("network", [network for network in RUN if str(network) in HARD], ids=str)
def test_hard_ones_are_right_or_refused(network):
    right_or_refused(network)


@pytest.mark.exhaustive
@pytest.mark.parametrize("network", RUN, ids=str)
def test_all_are_right_or_refused(network):
    right_or_refused(network)
