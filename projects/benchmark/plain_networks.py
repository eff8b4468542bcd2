"""Build networks of a benchmark without MMPretrain: our classifiers, and peers of torchvision."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from mmcv.cnn.utils import fuse_conv_bn
from torch import Tensor, nn

from mmvanilla.models.archs import resolve_arch
from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.vanillanet import VanillaNet
from projects.benchmark.networks import PUBLISHED_TOP1, Contender, calibrate

_NUM_CLASSES = 1000
#: Short names of peers, and their names in torchvision.
TORCHVISION_PEERS: dict[str, str] = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "swin-t": "swin_t",
    "convnext-t": "convnext_tiny",
}


class PlainHead(nn.Module):
    """Global average pooling and a pair of 1×1 convolutions, as MMPretrain's head of ours has."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv: nn.Module = ConvPair(
            in_channels, _NUM_CLASSES, 1, mid_channels=_NUM_CLASSES, last_norm=False
        )

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Map the backbone's outputs to logits, (N, K)."""
        return self.conv(feats[-1].mean(dim=(2, 3), keepdim=True)).flatten(1)


class PlainClassifier(nn.Module):
    """A backbone and a head."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Map images, (N, 3, H, W), to logits, (N, K)."""
        return self.head(self.backbone(images))


def build_plain_ours(arch: str, with_cp: bool = False, width_mult: float = 1.0) -> Contender:
    """Build what :func:`projects.benchmark.networks.build_ours` builds, in plain PyTorch."""
    backbone = VanillaNet(arch, width_mult=width_mult, with_cp=with_cp)
    backbone.init_weights()
    resolved = resolve_arch(arch, width_mult)
    model = PlainClassifier(backbone, PlainHead(resolved.dims[-1]))
    calibrate(model, resolved.input_size or 64)
    fused = copy.deepcopy(model)
    deployed: Any = fused.backbone
    deployed.switch_to_deploy()
    pair: Any = fused.head.conv
    fused.head.conv = pair.fuse()
    name = f"VanillaNet-{arch}" + (" with_cp" if with_cp else "")
    top1 = PUBLISHED_TOP1.get(arch)
    return Contender(name, "ours", arch, model, fused, top1, width_mult)


def build_torchvision_peer(name: str) -> Contender:
    """Build a classifier of torchvision, untrained, under the name of its peer in MMPretrain.

    Args:
        name: Key of :data:`TORCHVISION_PEERS`.

    Raises:
        ValueError: There is no such peer.
        ImportError: torchvision is not installed.
    """
    import torchvision  # type: ignore[import-untyped]

    if name not in TORCHVISION_PEERS:
        raise ValueError(f"unknown peer {name!r}; choose from {', '.join(TORCHVISION_PEERS)}")
    whole = getattr(torchvision.models, TORCHVISION_PEERS[name])(weights=None)
    children = list(whole.named_children())
    before = list(itertools.takewhile(lambda child: child[0] != "avgpool", children))
    behind = [child for _, child in children[len(before) :]]
    if name.startswith("resnet"):  # its forward flattens without a module
        behind.insert(1, nn.Flatten(1))
    model = PlainClassifier(nn.Sequential(*(child for _, child in before)), nn.Sequential(*behind))
    calibrate(model, 224)
    fused = fuse_conv_bn(copy.deepcopy(model))
    return Contender(f"{name} (torchvision)", "peer", name, model, fused, None)
