"""The files that the authors published, by their names in ``vanillanet://NAME``."""

from __future__ import annotations

from dataclasses import dataclass

RELEASE_URL = "https://github.com/huawei-noah/VanillaNet/releases/download/ckpt"
SCHEME = "vanillanet://"


@dataclass(frozen=True)
class PublishedFile:
    """One file of the authors' release.

    Args:
        file: The file's name in the release.
        arch: The variant's name in :data:`mmvanilla.models.archs.ARCHS`.
        act_num: n of the series activation.
        is_detector: True for a detector of MMDetection 2.x, False for a classifier.
    """

    file: str
    arch: str
    act_num: int = 3
    is_detector: bool = False


PUBLISHED: dict[str, PublishedFile] = {
    **{str(depth): PublishedFile(f"vanillanet_{depth}.pth", str(depth)) for depth in range(5, 14)},
    "13-1.5x": PublishedFile("vanillanet_13_x1_5.pth", "13-1.5x"),
    "13-1.5x-ada": PublishedFile("vanillanet_13_x1_5_ada_pool.pth", "13-1.5x-ada"),
    "13-act4": PublishedFile("vanillanet_13_act_num_4_kd_pretrain.pth", "13", act_num=4),
    "mask-rcnn-13": PublishedFile("mask_rcnn_vanillanet_13.pth", "13", act_num=4, is_detector=True),
    "retinanet-13": PublishedFile("retinanet_vanillanet_13.pth", "13", act_num=4, is_detector=True),
}
