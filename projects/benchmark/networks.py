"""Build the networks of ``mmvanilla benchmark``: VanillaNets, the plain reference, and peers."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvanilla.models.archs import resolve_arch
from mmvanilla.models.fusion import fuse_model
from mmvanilla.utils.dependencies import require
from projects.benchmark.reference import ReferenceVanillaNet

#: Top-1 accuracy in % on ImageNet-1k, published with the paper (arXiv 2305.12972).
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

#: Latency in ms of one 224×224 image, published by the authors, on a GPU of theirs.
PUBLISHED_LATENCY: dict[str, float] = {
    "5": 1.61,
    "6": 2.01,
    "7": 2.27,
    "8": 2.56,
    "9": 2.91,
    "10": 3.24,
    "11": 3.59,
    "12": 3.82,
    "13": 4.26,
    "13-1.5x": 7.83,
    "13-1.5x-ada": 9.72,
    "resnet50": 7.64,
    "swin-t": 20.25,
}

#: Short names of peers, and their names in MMPretrain's model zoo.
PEERS: dict[str, str] = {
    "resnet18": "resnet18_8xb32_in1k",
    "resnet50": "resnet50_8xb32_in1k",
    "resnet101": "resnet101_8xb32_in1k",
    "swin-t": "swin-tiny_16xb64_in1k",
    "convnext-t": "convnext-tiny_32xb128_in1k",
}


@dataclass(frozen=True)
class Contender:
    """One network of a benchmark.

    Attributes:
        name: Name in tables and plots.
        kind: Kind of the network: ``'ours'``, ``'reference'`` or ``'peer'``.
        arch: Variant of a VanillaNet, or name of a peer in MMPretrain's model zoo.
        model: Training form with random weights, in eval mode, on the CPU.
        fused: Form for inference; the batch norms of a peer are folded into its convolutions.
        published_top1: Published top-1 accuracy in %; None if unknown.
        width_mult: Factor for every width of a VanillaNet. Default: 1.
    """

    name: str
    kind: str
    arch: str
    model: nn.Module
    fused: nn.Module
    published_top1: float | None
    width_mult: float = 1.0

    @property
    def has_reference(self) -> bool:
        """True if there is a plain reference network to compare with."""
        return self.kind == "ours" and not resolve_arch(self.arch).is_adaptive


def build_ours(arch: str, with_cp: bool = False, width_mult: float = 1.0) -> Contender:
    """Build a VanillaNet classifier of 1000 classes at λ = 1.

    Args:
        arch: Name of a variant.
        with_cp: Whether to recompute activations in backward instead of keeping them.
            Default: False.
        width_mult: Factor for every width. Default: 1.

    Raises:
        ValueError: The variant is unknown.
        ImportError: MMPretrain is not installed.
    """
    require("mmpretrain")
    from mmpretrain.models import ImageClassifier

    import mmvanilla.models.cls_head  # noqa: F401

    resolved = resolve_arch(arch, width_mult)
    model = ImageClassifier(
        backbone=dict(type="VanillaNet", arch=arch, width_mult=width_mult, with_cp=with_cp),
        head=dict(type="VanillaNetClsHead", num_classes=1000, in_channels=resolved.dims[-1]),
    )
    calibrate(model, resolved.input_size or 64)
    top1 = PUBLISHED_TOP1.get(arch)
    name = f"VanillaNet-{arch}" + (" with_cp" if with_cp else "")
    return Contender(name, "ours", arch, model, fuse_model(model), top1, width_mult)


def build_reference(ours: Contender) -> Contender:
    """Build the plain network that computes the same function as one of ours, with its weights.

    Args:
        ours: Network from :func:`build_ours`.

    Raises:
        ValueError: The variant pools adaptively, which the reference does not.
    """
    arch = resolve_arch(ours.arch, ours.width_mult)
    model, fused = (ReferenceVanillaNet(arch, deploy=deploy).eval() for deploy in (False, True))
    model.load_ours(ours.model.state_dict())
    fused.load_ours(ours.fused.state_dict())
    name = f"reference-{ours.arch}"
    return Contender(name, "reference", ours.arch, model, fused, ours.published_top1)


def build_peer(name: str) -> Contender:
    """Build a classifier of MMPretrain's model zoo, untrained.

    Args:
        name: Key of :data:`PEERS`, or a name in the zoo.

    Raises:
        ValueError: MMPretrain's zoo has no such model.
        ImportError: MMPretrain is not installed.
    """
    require("mmpretrain")
    from mmcv.cnn.utils import fuse_conv_bn
    from mmpretrain.apis import ModelHub, get_model

    zoo_name = PEERS.get(name, name)
    try:
        results = ModelHub.get(zoo_name).results or []
        model = get_model(zoo_name, pretrained=False)
    except ValueError as error:
        raise ValueError(
            f"unknown peer {name!r}; choose from {', '.join(PEERS)}, or a name of MMPretrain's zoo"
        ) from error
    top1 = [
        float(result.metrics["Top 1 Accuracy"])
        for result in results
        if "Top 1 Accuracy" in (result.metrics or {})
    ]
    calibrate(model, 224)
    fused = fuse_conv_bn(copy.deepcopy(model))
    return Contender(name, "peer", zoo_name, model, fused, top1[0] if top1 else None)


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
    backbone = model.backbone
    assert isinstance(backbone, nn.Module)
    backbone.train()
    with torch.no_grad():
        backbone(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
