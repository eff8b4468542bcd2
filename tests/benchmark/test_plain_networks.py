"""Networks without MMPretrain compute what those with it do."""

import pytest
import torch

from mmvanilla.apis.model import TensorModel
from mmvanilla.benchmark.networks import PEERS, build_reference
from mmvanilla.benchmark.plain_networks import (
    TORCHVISION_PEERS,
    build_plain_ours,
    build_torchvision_peer,
)
from mmvanilla.benchmark.runtimes import count_macs, prepare

WIDTH = 1 / 32


def test_plain_classifier_is_fused_and_has_a_reference():
    ours = build_plain_ours("6", width_mult=WIDTH)
    images = torch.randn(2, 3, 64, 64)
    expected = prepare(ours, "training", images)()
    assert expected.shape == (2, 1000) and expected.std() > 0
    for contender, form in ((ours, "fused"), (build_reference(ours), "fused")):
        found = prepare(contender, form, images)()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not any("norm" in name for name, _ in ours.fused.named_parameters())


def test_plain_classifier_equals_that_of_mmpretrain():
    pytest.importorskip("mmpretrain.models")
    from mmvanilla.benchmark.networks import build_ours

    theirs = build_ours("5", width_mult=WIDTH)
    ours = build_plain_ours("5", width_mult=WIDTH)
    ours.model.load_state_dict(theirs.model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(
        prepare(ours, "training", images)(), prepare(theirs, "training", images)()
    )
    assert ours.name == theirs.name and ours.published_top1 == theirs.published_top1
    assert build_plain_ours("5", True, WIDTH).name == build_ours("5", True, WIDTH).name


@pytest.mark.parametrize(
    "name",
    ["resnet18", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in TORCHVISION_PEERS)],
)
def test_torchvision_peer_is_split_into_backbone_and_head(name):
    pytest.importorskip("torchvision")
    peer = build_torchvision_peer(name)
    images = torch.randn(1, 3, 64, 64)
    logits = prepare(peer, "training", images)()
    assert logits.shape == (1, 1000)
    torch.testing.assert_close(prepare(peer, "fused", images)(), logits, rtol=1e-3, atol=1e-4)
    features = TensorModel(peer.model, "backbone")(images)
    assert features.dim() == 4
    assert count_macs(peer, "fused", images) > count_macs(peer, "fused", images, features=True)


def test_all_peers_can_be_had_from_torchvision():
    torchvision = pytest.importorskip("torchvision")
    assert set(TORCHVISION_PEERS) == set(PEERS)
    assert all(hasattr(torchvision.models, name) for name in TORCHVISION_PEERS.values())
    with pytest.raises(ValueError, match="unknown peer 'resnet-eleven'; choose from resnet18"):
        build_torchvision_peer("resnet-eleven")


def test_plain_classifier_is_exported():
    pytest.importorskip("onnxruntime")
    ours = build_plain_ours("5", width_mult=WIDTH)
    images = torch.randn(2, 3, 64, 64)
    (found,) = prepare(ours, "onnxruntime", images)()
    expected = prepare(ours, "fused", images)()
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
