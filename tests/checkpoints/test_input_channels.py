"""Weights of three input channels in models of one, of six, of any number."""

from __future__ import annotations

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from mmvanilla import VanillaNet
from mmvanilla.checkpoints.conversion import adapt_kernel, convert_file
from mmvanilla.checkpoints.zoo import load_from_vanillanet
from tests.helpers import DATA, backbone_of, relative_difference

TINY5 = dict(dims=(16, 32, 64, 128), strides=(2, 2, 2))
FILES = {False: DATA / "tiny5.official.pth", True: DATA / "tiny5.official_deploy.pth"}


def old_images(images: torch.Tensor) -> torch.Tensor:
    """The three channels that images of N channels stand for."""
    channels = images.shape[1]
    if channels <= 3:
        return images[:, [old % channels for old in range(3)]]
    # Each old channel is the mean of those that repeat it.
    return torch.stack([images[:, old::3].mean(dim=1) for old in range(3)], dim=1)


@pytest.mark.parametrize("in_channels", range(1, 11))
def test_the_new_kernel_computes_what_the_old_one_did(in_channels):
    weight = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    images = torch.randn(2, in_channels, 8, 8, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(old_images(images), weight, stride=4)
    found = torch.nn.functional.conv2d(images, adapt_kernel(weight, in_channels), stride=4)
    assert relative_difference(expected, found) < 1e-12


@pytest.mark.parametrize("in_channels", [1, 6])
@pytest.mark.parametrize(
    ("fused", "deploy"), [(False, False), (False, True), (True, True)], ids=str
)
def test_a_model_of_other_channels_gives_the_same_features(in_channels, fused, deploy):
    address = f"vanillanet://{FILES[fused]}?in_channels={in_channels}"
    checkpoint = CheckpointLoader.load_checkpoint(address)
    assert checkpoint["meta"]["in_channels"] == in_channels
    net = VanillaNet(TINY5, in_channels=in_channels, deploy=deploy).eval()
    net.load_state_dict(backbone_of(checkpoint["state_dict"]))
    old = VanillaNet(TINY5, deploy=deploy).eval()
    old.load_state_dict(backbone_of(convert_file(FILES[fused])[0]["state_dict"]))
    images = torch.randn(1, in_channels, 64, 64)
    with torch.no_grad():
        for expected, found in zip(old(old_images(images)), net(images), strict=True):
            assert relative_difference(expected, found) < 1e-5


@pytest.mark.parametrize("option", ["in_channels=0", "in_channels=", "channels=1", "", "a?b"])
def test_other_options_are_refused(option):
    with pytest.raises(ValueError, match=r"the only one is \?in_channels=N"):
        load_from_vanillanet(f"vanillanet://{FILES[False]}?{option}")
