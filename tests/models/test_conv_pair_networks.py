"""conv_cfg=dict(type='ConvPair') in the networks of others: what it computes and what it leaves."""

from __future__ import annotations

import copy

import pytest
import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.utils import fuse_conv_bn
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmvanilla import count_fusable, fuse_model
from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.utils.dependencies import has_toolbox
from tests.helpers import randomise, relative_difference

PAIR, DEPLOY = dict(type="ConvPair"), dict(type="ConvPair", deploy=True)


def outputs(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return flatten(model(x))


def flatten(output: object) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    return [tensor for item in output for tensor in flatten(item)]


def assert_fuses_to(pairs: nn.Module, deployed: nn.Module, x: torch.Tensor) -> nn.Module:
    """Fused in float64, ``pairs`` computes what it did; ``deployed`` takes its weights strictly."""
    randomise(pairs).double().eval()
    expected = outputs(pairs, x)
    assert count_fusable(pairs) == sum(isinstance(m, ConvPair) for m in pairs.modules()) > 0
    fused = fuse_model(pairs)
    deployed.double().load_state_dict(fused.state_dict(), strict=True)
    deployed.eval()  # which returns nothing in some toolboxes
    for model in (fused, deployed):
        assert count_fusable(model) == 0
        for before, after in zip(expected, outputs(model, x), strict=True):
            assert relative_difference(before, after) < 1e-9
    return fused


@pytest.mark.parametrize(
    "norm_cfg", [None, dict(type="BN"), dict(type="GN", num_groups=4)], ids=str
)
def test_a_conv_module_fuses_and_mmcvs_own_fusing_goes_on_from_there(norm_cfg):
    pairs, deployed = (
        ConvModule(8, 12, 3, padding=1, conv_cfg=cfg, norm_cfg=norm_cfg) for cfg in (PAIR, DEPLOY)
    )
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    fused = assert_fuses_to(pairs, deployed, x)
    if norm_cfg == dict(type="BN"):
        bare = fuse_conv_bn(fused)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in bare.modules())
        assert relative_difference(*outputs(pairs, x), *outputs(bare, x)) < 1e-9


def levels(*channels: int, size: int = 16) -> list[torch.Tensor]:
    """Features of several levels, each half as large as the one before."""
    return [
        torch.randn(1, count, size >> level, size >> level, dtype=torch.float64)
        for level, count in enumerate(channels)
    ]


DENSE = dict(num_classes=2, in_channels=32, feat_channels=32, stacked_convs=1)
FIVE = (32,) * 5
SMALL = dict(base_channels=8, stem_channels=8)
# Each network of a toolbox, and the channels of the levels that it takes; none for an image.
NETWORKS: list[tuple[str, dict, tuple[int, ...]]] = [
    ("mmpretrain", dict(type="ResNetV1d", depth=50, **SMALL), ()),
    ("mmpretrain", dict(type="ResNeXt", depth=50, groups=4, width_per_group=4), ()),
    ("mmpretrain", dict(type="SEResNet", depth=50, **SMALL), ()),
    ("mmpretrain", dict(type="MobileNetV2", widen_factor=0.5), ()),
    ("mmdet", dict(type="Res2Net", depth=50, scales=4, base_width=4, **SMALL), ()),
    ("mmdet", dict(type="FPN", in_channels=[8, 16], out_channels=16, num_outs=3), (8, 16)),
    ("mmdet", dict(type="ATSSHead", **DENSE), FIVE),
    ("mmdet", dict(type="RetinaSepBNHead", num_ins=5, norm_cfg=dict(type="BN"), **DENSE), FIVE),
    ("mmseg", dict(type="CGNet", num_channels=(8, 16, 32), num_blocks=(1, 2)), ()),
    ("mmseg", dict(type="MobileNetV3"), ()),
    (
        "mmseg",
        dict(
            type="UPerHead", in_channels=[8, 16], in_index=[0, 1], channels=16, num_classes=2,
            pool_scales=(1, 2),
        ),
        (8, 16),
    ),
]  # fmt: skip


def build_in(toolbox: str, cfg: dict) -> nn.Module:
    pytest.importorskip(f"{toolbox}.models")
    with DefaultScope.overwrite_default_scope(toolbox):
        model = MODELS.build(copy.deepcopy(cfg))
    for norm in model.modules():  # some networks set it again while they are built
        norm.training = False
    return model


@pytest.mark.parametrize(
    ("toolbox", "network", "channels"), NETWORKS, ids=[f"{t}-{n['type']}" for t, n, _ in NETWORKS]
)
def test_networks_of_the_toolboxes_fuse_to_their_deploy_form(toolbox, network, channels):
    if not has_toolbox(toolbox):
        pytest.skip(f"{toolbox} is not installed")
    pairs, deployed = (build_in(toolbox, dict(network, conv_cfg=cfg)) for cfg in (PAIR, DEPLOY))
    x = levels(*channels, size=48) if channels else torch.randn(1, 3, 64, 64, dtype=torch.float64)
    assert_fuses_to(pairs, deployed, x)


@pytest.mark.toolbox("mmdet")
def test_a_network_that_reads_a_weight_is_told_why_it_cannot():
    head = build_in("mmdet", dict(type="TOODHead", conv_cfg=PAIR, num_dcn=0, **DENSE))
    with pytest.raises(AttributeError, match=r"a ConvPair has no weight.*first\.conv\.weight"):
        head.double()(levels(*FIVE, size=48))
