"""Build the networks of the benchmark in plain PyTorch: VanillaNets, the reference, and peers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from mmcv.cnn.utils import fuse_conv_bn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvanilla.models.archs import resolve_arch
from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.fusion import fuse_model
from mmvanilla.models.vanillanet import VanillaNet
from projects.benchmark.reference import ReferenceVanillaNet

#: Top-1 accuracy in % on ImageNet-1k of a VanillaNet, published with the paper (arXiv 2305.12972).
PUBLISHED_TOP1: dict[str, float] = {
    "5": 72.49,
    "6": 76.36,
    "7": 77.98,
    "8": 79.13,
    "9": 79.87,
    "10": 80.57,
    "11": 81.08,
    "12": 81.55,
    "13": 82.05,
    "13-1.5x": 82.53,
    "13-1.5x-ada": 83.11,
}
#: Peers: their names in torchvision, and their top-1 accuracy in % in MMPretrain's model zoo.
PEERS: dict[str, tuple[str, float]] = {
    "resnet18": ("resnet18", 69.90),
    "resnet50": ("resnet50", 76.55),
    "resnet101": ("resnet101", 77.97),
    "swin-t": ("swin_t", 81.18),
    "convnext-t": ("convnext_tiny", 82.14),
}
_NUM_CLASSES = 1000


@dataclass(frozen=True)
class Network:
    """One network of a benchmark.

    Attributes:
        name: Name in tables and plots.
        kind: Kind of the network: ``'ours'``, ``'reference'`` or ``'peer'``.
        arch: Variant of a VanillaNet, or name of a peer.
        model: Training form with random weights, in eval mode, on the CPU.
        fused: Form for inference; the batch norms of a peer are folded into its convolutions.
        top1: Published top-1 accuracy in %.
    """

    name: str
    kind: str
    arch: str
    model: nn.Module
    fused: nn.Module
    top1: float


class PairHead(nn.Module):
    """Global average pooling and a pair of 1×1 convolutions."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = ConvPair(
            in_channels, _NUM_CLASSES, 1, mid_channels=_NUM_CLASSES, last_norm=False
        )

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Map the backbone's outputs to logits, (N, K)."""
        return self.conv(feats[-1].mean(dim=(2, 3), keepdim=True)).flatten(1)


class Classifier(nn.Module):
    """A backbone and a head."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Map images, (N, 3, H, W), to logits, (N, K)."""
        return self.head(self.backbone(images))


class Part(nn.Module):
    """A classifier, or its backbone alone, in eval mode."""

    def __init__(self, model: nn.Module, features: bool) -> None:
        super().__init__()
        self.model: Any = model
        self.features = features
        self.eval()  # the whole of it, as TorchScript wants it

    def forward(self, images: Tensor) -> Any:
        """Map images, (N, 3, H, W), to logits, or to what the backbone gives."""
        return self.model.backbone(images) if self.features else self.model(images)


def build(name: str, with_cp: bool = False, width_mult: float = 1.0) -> Network:
    """Build a classifier of 1000 classes.

    Args:
        name: A variant of VanillaNet, ``'reference-'`` and a variant, or a key of :data:`PEERS`.
        with_cp: Whether a VanillaNet recomputes activations in backward. Default: False.
        width_mult: Factor for every width of a VanillaNet. Default: 1.

    Raises:
        ValueError: There is no such network.
    """
    if name in PEERS:
        return _build_peer(name)
    arch = name.removeprefix("reference-")
    resolved = resolve_arch(arch, width_mult)
    top1 = PUBLISHED_TOP1.get(arch, float("nan"))
    if arch != name:
        model, fused = (ReferenceVanillaNet(resolved, deploy).eval() for deploy in (False, True))
        calibrate(model, 64)
        return Network(name, "reference", arch, model, fused, top1)
    backbone = VanillaNet(arch, width_mult=width_mult, with_cp=with_cp)
    backbone.init_weights()
    model = Classifier(backbone, PairHead(resolved.dims[-1]))
    calibrate(model, resolved.input_size or 64)
    title = f"VanillaNet-{arch}{', with_cp' if with_cp else ''}"
    return Network(title, "ours", arch, model, fuse_model(model), top1)


def _build_peer(name: str) -> Network:
    torchvision_name, top1 = PEERS[name]
    whole = getattr(torchvision.models, torchvision_name)(weights=None)
    children = dict(whole.named_children())
    # A ResNet's forward flattens without a module of its own.
    tail = [
        children.pop(part)
        for part in ("avgpool", "flatten", "head", "classifier", "fc")
        if part in children
    ]
    if name.startswith("resnet"):
        tail.insert(1, nn.Flatten(1))
    model = Classifier(nn.Sequential(*children.values()), nn.Sequential(*tail))
    calibrate(model, 224)
    return Network(name, "peer", name, model, fuse_conv_bn(copy.deepcopy(model)), top1)


def calibrate(model: nn.Module, size: int) -> None:
    """Set the statistics of batch norms from noise, so that activations stay in range.

    In untrained networks they shrink to denormal numbers, with which some CPUs are much slower.

    Args:
        model: A classifier with its ``backbone``; it is in eval mode afterwards.
        size: Height and width of the noise in pixels.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
