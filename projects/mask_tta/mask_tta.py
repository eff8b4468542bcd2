"""Test-time augmentation for instance segmentation: MMDetection's ``DetTTAModel`` refuses masks."""

from __future__ import annotations

from typing import Any

import torch
from mmcv.ops import batched_nms
from mmdet.models.test_time_augs import DetTTAModel
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

_FLIPPED_DIMS = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}


@MODELS.register_module()
class MaskTTAModel(DetTTAModel):
    """Test-time augmentation of an instance segmenter, by flipping and resizing.

    The boxes of all views of an image are merged by NMS, as in ``DetTTAModel``; each of them keeps
    its own mask, flipped back. Masks are not averaged: MMDetection gives them as yes or no.

    Args:
        tta_cfg: ``nms``, the config of the NMS, and ``max_per_img``, the number of detections to
            keep in an image.
        module: The detector, or its config.
    """

    def _merge_single_sample(self, data_samples: list[Any]) -> Any:
        """Merge the samples of the views, with masks (N, H, W) of the original size, into one."""
        views = [sample.pred_instances for sample in data_samples]
        metas = [sample.metainfo for sample in data_samples]
        boxes, scores = self.merge_aug_bboxes(
            [view.bboxes for view in views], [view.scores for view in views], metas
        )
        if not len(boxes):
            return data_samples[0]
        labels = torch.cat([view.labels for view in views])
        masks = torch.cat(
            [_flip_back(view.masks, meta) for view, meta in zip(views, metas, strict=True)]
        )
        kept_boxes, kept = batched_nms(boxes, scores, labels, self.tta_cfg.nms)
        number = self.tta_cfg.max_per_img
        kept_boxes, kept = kept_boxes[:number], kept[:number]
        data_samples[0].pred_instances = InstanceData(
            bboxes=kept_boxes[:, :-1],
            scores=kept_boxes[:, -1],
            labels=labels[kept],
            masks=masks[kept],
        )
        return data_samples[0]


def _flip_back(masks: Tensor, meta: dict[str, Any]) -> Tensor:
    return masks.flip(_FLIPPED_DIMS[meta["flip_direction"]]) if meta["flip"] else masks
