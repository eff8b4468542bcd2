"""Draw detections into enlarged copies of small images, so that their labels can be read.

Configs import this module by ``custom_imports = dict(imports=['mmvanilla',
'mmvanilla.engine.enlarging_visualizer'])``; it needs MMDetection.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmdet.structures.bbox import BaseBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmdet.visualization import DetLocalVisualizer
from mmengine.registry import VISUALIZERS
from mmengine.structures import InstanceData
from torch import Tensor


@VISUALIZERS.register_module()
class EnlargingVisualizer(DetLocalVisualizer):
    """MMDetection's visualizer, which first enlarges images that are too small for its labels.

    The names of classes have a fixed size in pixels, so that they hide the objects of a small
    image. An image, its boxes and its masks are enlarged by the smallest whole number that makes
    the shorter side at least ``min_side`` long; larger images are drawn as they are. So are
    samples with a semantic or panoptic label map.

    Args:
        name: Name of the instance. Default: ``'visualizer'``.
        *args: Further arguments of ``DetLocalVisualizer``.
        min_side: Smallest length in pixels of the shorter side of a picture. Default: 256.
        **kwargs: Further arguments of ``DetLocalVisualizer``.

    Raises:
        ValueError: ``min_side`` is not a whole number of at least 1.

    Examples:
        >>> visualizer = dict(type="EnlargingVisualizer", min_side=384)
    """

    # MMEngine looks for `name` in the signature.
    def __init__(
        self, name: str = "visualizer", *args: Any, min_side: int = 256, **kwargs: Any
    ) -> None:
        if not isinstance(min_side, int) or isinstance(min_side, bool) or min_side < 1:
            raise ValueError(f"min_side must be a whole number of at least 1, found {min_side!r}")
        super().__init__(name, *args, **kwargs)
        self.min_side = min_side

    def add_datasample(
        self, name: str, image: np.ndarray, data_sample: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """Draw a sample, enlarged if it is small.

        Args:
            name: Name of the picture.
            image: Pixels in RGB, (H, W, 3).
            data_sample: A ``DetDataSample``, which is left as it is. None: only the image.
            *args: Arguments of ``DetLocalVisualizer.add_datasample``.
            **kwargs: Further arguments of it.
        """
        factor = -(-self.min_side // min(image.shape[:2]))
        if factor > 1 and not _has_label_map(data_sample):
            size = (image.shape[1] * factor, image.shape[0] * factor)
            pixels = image.clip(0, 255).astype(np.uint8)
            image = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
            data_sample = _enlarged(data_sample, factor)
        super().add_datasample(name, image, data_sample, *args, **kwargs)


def _has_label_map(sample: Any) -> bool:
    maps = ("gt_sem_seg", "pred_sem_seg", "gt_panoptic_seg", "pred_panoptic_seg")
    return sample is not None and any(name in sample for name in maps)


def _enlarged(sample: Any, factor: int) -> Any:
    """Copy the annotations and predictions of a sample, with boxes and masks enlarged."""
    if sample is None:
        return None
    copy = sample.new()
    for name in ("gt_instances", "pred_instances"):
        if name in sample:
            instances = InstanceData(**dict(sample.get(name).cpu().items()))
            if "bboxes" in instances:
                boxes = instances.bboxes
                boxes = boxes.tensor if isinstance(boxes, BaseBoxes) else boxes
                instances.bboxes = boxes * factor
            if "masks" in instances:
                masks = _as_array(instances.masks)
                instances.masks = masks.repeat(factor, axis=1).repeat(factor, axis=2)
            copy.set_field(instances, name, dtype=InstanceData)
    return copy


def _as_array(masks: Any) -> np.ndarray:
    """Return masks of any kind as an array, (N, H, W)."""
    if isinstance(masks, BitmapMasks | PolygonMasks):
        return masks.to_ndarray()
    return masks.numpy() if isinstance(masks, Tensor) else np.asarray(masks)
