"""Keep the networks of a report on a GPU, and build its detectors where mmcv can run them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model
from mmvanilla.models.vanillanet import VanillaNet
from mmvanilla.utils.dependencies import has_toolbox, require
from mmvanilla.utils.paths import config_path
from projects.benchmark.graphs import Run, Unmeasurable
from projects.benchmark.networks import Contender, build_ours, build_peer, build_reference
from projects.benchmark.plain_networks import build_plain_ours, build_torchvision_peer
from projects.benchmark.runtimes import count_macs

_REFERENCE = "reference-"
_WITH_CP = " with_cp"
# Configs of ours, and of mmdet, by the names of the plan.
_DETECTORS = {
    "mask-rcnn-13": "maskrcnn_vanillanet.py",
    "mask-rcnn-small": "shapes/maskrcnn_vanillanet_shapes.py",
    "mask-rcnn-r50": "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
}


class Networks:
    """The networks of one process, each built once on the CPU.

    Without MMPretrain our classifiers are built in plain PyTorch, and the peers are those of
    torchvision.
    """

    def __init__(self) -> None:
        self._built: dict[tuple[str, float], Contender] = {}
        self._gmacs: dict[tuple[Any, ...], float] = {}

    def get(self, name: str, width_mult: float = 1.0) -> Contender:
        """Build a network, or return the one that was built before.

        Args:
            name: Name as in :attr:`projects.benchmark.gpu_plan.Group.networks`.
            width_mult: Factor for every width of a VanillaNet. Default: 1.

        Raises:
            ValueError: The variant or peer is unknown.
            ImportError: Neither MMPretrain nor torchvision is installed, for a peer.
        """
        key = (name, width_mult)
        if key not in self._built:
            self._built[key] = self._build(name, width_mult)
        return self._built[key]

    def _build(self, name: str, width_mult: float) -> Contender:
        if name.startswith(_REFERENCE):
            return build_reference(self.get(name.removeprefix(_REFERENCE), width_mult))
        ours, peer = _builders()
        if name[0].isdigit():
            return ours(name.removesuffix(_WITH_CP), name.endswith(_WITH_CP), width_mult)
        return peer(name)

    def gmacs(self, contender: Contender, shape: tuple[int, ...], features: bool) -> float:
        """Count the 10⁹ multiply-accumulates of one image, once for each network and size.

        Args:
            contender: The network; it is counted in its fused form.
            shape: Shape of the images, (N, 3, H, W).
            features: Whether to count only the backbone.
        """
        key = (contender.name, contender.width_mult, shape[-2:], features)
        if key not in self._gmacs:
            image = torch.empty(shape, device="meta")
            self._gmacs[key] = count_macs(contender, "fused", image, features) / 1e9
        return self._gmacs[key]

    def detector(self, name: str, images: Tensor) -> Run:
        """Build a fused detector that predicts on images.

        Args:
            name: Name of the detector.
            images: Images, (N, 3, H, W), on the device to run on.

        Raises:
            Unmeasurable: mmdet is not installed, or mmcv has no ops for this device.
        """
        _require_ops(images.device)
        model: Any = _build_detector(name).to(images.device).eval()
        backbone = model.backbone
        if isinstance(backbone, VanillaNet):
            backbone.switch_to_deploy()
        samples = _data_samples(images)

        @torch.no_grad()
        def run() -> Any:
            return model(images, copy.copy(samples), mode="predict")

        run()
        return run


@cache
def _builders() -> tuple[Callable[..., Contender], Callable[[str], Contender]]:
    try:
        require("mmpretrain")
    except (ImportError, RuntimeError):
        return build_plain_ours, build_torchvision_peer
    return build_ours, build_peer


def _build_detector(name: str) -> nn.Module:
    where = _DETECTORS[name]
    if where.startswith("mmdet::"):
        from mmengine.hub import get_config

        cfg = get_config(where)
    else:
        cfg = load_config(config_path(where))
    return build_model(cfg)


def _require_ops(device: torch.device) -> None:
    if not has_toolbox("mmdet"):
        raise Unmeasurable("mmdet is not installed")
    try:
        require("mmdet")
        from mmcv.ops import nms, roi_align

        boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]], device=device)
        nms(boxes, torch.ones(1, device=device), 0.5)
        regions = torch.cat([boxes.new_zeros(1, 1), boxes], dim=1)
        roi_align(boxes.new_ones(1, 1, 8, 8), regions, (2, 2))
    except Exception as error:  # mmcv's ops raise errors of various types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unmeasurable(f"mmcv has no ops for {device.type} here: {reason[:120]}") from error


def _data_samples(images: Tensor) -> list[Any]:
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[-2:])
    keys = ("img_shape", "ori_shape", "pad_shape", "batch_input_shape")
    metainfo = dict(dict.fromkeys(keys, size), scale_factor=(1.0, 1.0))
    return [DetDataSample(metainfo=dict(metainfo)) for _ in images]
