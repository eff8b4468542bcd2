"""Give MMDeploy's graph of a two-stage detector the proposals and boxes that PyTorch has.

MMDeploy exports three things in another way than MMDetection computes them: it suppresses region
proposals over all levels of the pyramid together (MMDetection: over each level alone), it drops
proposals with a low score (MMDetection: none), and it refines each proposal for its best class only
(MMDetection: for each class). The two functions here replace MMDeploy's while it exports.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_RPN = "mmdet.models.dense_heads.rpn_head.RPNHead.predict_by_feat"
_BBOX_HEAD = "mmdet.models.roi_heads.bbox_heads.bbox_head.BBoxHead.predict_by_feat"
_NO_SCORE = -1.0  # below every score that a head gives


@contextmanager
def exact_two_stage() -> Iterator[None]:
    """Let MMDeploy export two-stage detectors for ONNX Runtime by the functions of this module."""
    registry = importlib.import_module("mmdeploy.core").FUNCTION_REWRITER
    replaced = ((_RPN, predict_proposals), (_BBOX_HEAD, predict_boxes))
    for name, function in replaced:
        # A rewriter for one backend comes before MMDeploy's own, which are for all.
        registry.register_rewriter(func_name=name, backend="onnxruntime")(function)
    try:
        yield
    finally:
        for _, function in replaced:
            registry._registry.remove_record(function)


def require_plain_nms(nms: Any, where: str) -> None:
    """Check that a graph can suppress boxes as a config asks for.

    Args:
        nms: The ``nms`` entry of a ``test_cfg``.
        where: Its place in the config, for the message.

    Raises:
        ValueError: It is not the plain NMS, the only one that ONNX has.
    """
    kind = nms.get("type", "nms")
    if kind != "nms":
        raise ValueError(
            f"{where}.type is {kind!r}, which an ONNX graph cannot compute; set it to 'nms'"
        )


def predict_proposals(
    self: Any,
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    score_factors: Any = None,
    batch_img_metas: Any = None,
    cfg: Any = None,
    rescale: bool = False,
    with_nms: bool = True,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Turn the maps of a region proposal head into proposals, with NMS on each level alone.

    Args:
        self: The RPNHead.
        cls_scores: Scores of each level, (N, A, H, W), or (N, 2 A, H, W) for a softmax.
        bbox_preds: Deltas of each level, (N, 4 A, H, W).
        score_factors: Unused; part of the signature, as are ``rescale`` and ``with_nms``.
        batch_img_metas: The first one's ``img_shape`` is the height and width to clip boxes to.
        cfg: The ``test_cfg`` of the head. None: its own.
        rescale: Unused.
        with_nms: Unused.
        **kwargs: Unused.

    Returns:
        Boxes and scores, (N, P, 5), the best first, and the labels, (N, P), all 0.
    """
    cfg = self.test_cfg if cfg is None else cfg
    require_plain_nms(cfg.nms, "test_cfg.rpn.nms")
    sizes = [scores.shape[-2:] for scores in cls_scores]
    levels = self.prior_generator.grid_priors(sizes, device=cls_scores[0].device)
    batch = cls_scores[0].shape[0]
    boxes_of, scores_of, level_of = [], [], []
    for level, (maps, deltas, priors) in enumerate(
        zip(cls_scores, bbox_preds, levels, strict=True)
    ):
        deltas = deltas.permute(0, 2, 3, 1).reshape(batch, -1, 4)
        scores = maps.permute(0, 2, 3, 1).reshape(batch, -1, self.cls_out_channels)
        scores = scores.sigmoid() if self.use_sigmoid_cls else scores.softmax(-1)[..., :-1]
        scores = scores.reshape(batch, -1)
        priors = priors.unsqueeze(0).expand_as(deltas)
        if cfg.get("nms_pre", -1) > 0:
            scores, best = scores.topk(cfg.nms_pre, dim=1)
            deltas, priors = _taken(deltas, best), _taken(priors, best)
        boxes = self.bbox_coder.decode(priors, deltas, max_shape=batch_img_metas[0]["img_shape"])
        smallest = cfg.get("min_bbox_size", -1)
        if smallest >= 0:
            width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
            large = (width > smallest) & (height > smallest)
            scores = torch.where(large, scores, torch.full_like(scores, _NO_SCORE))
        boxes_of.append(boxes)
        scores_of.append(scores)
        level_of.append(torch.full_like(scores, float(level)))
    boxes, scores, level_ids = (torch.cat(parts, 1) for parts in (boxes_of, scores_of, level_of))
    # NMS keeps classes apart: each level is one, in which the boxes of the others have no score.
    of_level = level_ids.unsqueeze(1) == torch.arange(len(sizes)).reshape(1, -1, 1)
    by_level = torch.where(of_level, scores.unsqueeze(1), scores.new_full((), _NO_SCORE))
    kept = _kept_scores(boxes, by_level, cfg.nms.iou_threshold, 0.0, cfg.max_per_img)
    best_scores, best = _best(kept, cfg.max_per_img)
    proposals = _with_scores(_taken(boxes, best), best_scores)
    return proposals, torch.zeros_like(best)


def predict_boxes(
    self: Any,
    rois: Tensor,
    cls_scores: Tensor,
    bbox_preds: Tensor | None,
    batch_img_metas: Any,
    rcnn_test_cfg: Any = None,
    rescale: bool = False,
) -> tuple[Tensor, Tensor]:
    """Turn the outputs of a box head into detections, each class with its own box.

    Args:
        self: The BBoxHead.
        rois: The proposals, (N, P, 5), the first number being the index of the image.
        cls_scores: Scores with the background last, (N, P, K + 1).
        bbox_preds: Deltas, (N, P, 4 K), or (N, P, 4) for all classes alike. None: the proposals
            are the boxes.
        batch_img_metas: The first one's ``img_shape`` is the height and width to clip boxes to.
        rcnn_test_cfg: The ``test_cfg`` of the head.
        rescale: Unused; part of the signature.

    Returns:
        Boxes and scores, (N, D, 5), the best first, and the labels, (N, D).
    """
    nms = rcnn_test_cfg.nms
    require_plain_nms(nms, "test_cfg.rcnn.nms")
    if self.custom_cls_channels:
        scores = self.loss_cls.get_activation(cls_scores)
    else:
        scores = cls_scores.softmax(-1)
    scores = scores[..., : self.num_classes]
    batch, classes = scores.shape[0], self.num_classes
    proposals = rois[..., 1:]
    boxes = proposals
    if bbox_preds is not None:
        shape = batch_img_metas[0]["img_shape"]
        boxes = self.bbox_coder.decode(proposals, bbox_preds, max_shape=shape)
    boxes = boxes.reshape(batch, proposals.shape[1], -1, 4).expand(-1, -1, classes, 4)
    # Images with fewer proposals than others are filled up with boxes without area.
    real = (proposals[..., 2] > proposals[..., 0]) & (proposals[..., 3] > proposals[..., 1])
    scores = torch.where(real.unsqueeze(-1), scores, torch.zeros_like(scores))
    boxes, scores = boxes.reshape(batch, -1, 4), scores.reshape(batch, -1)
    labels = torch.arange(classes).repeat(proposals.shape[1]).unsqueeze(0).expand_as(scores)
    apart = boxes
    if not nms.get("class_agnostic", False):
        # As mmcv does, each class is moved to a place of its own, where no other's boxes are.
        apart = boxes + (labels.to(boxes) * (boxes.max() + 1)).unsqueeze(-1)
    kept = _kept_scores(
        apart,
        scores.unsqueeze(1),
        nms.iou_threshold,
        rcnn_test_cfg.score_thr,
        rcnn_test_cfg.max_per_img,
    )
    best_scores, best = _best(kept, rcnn_test_cfg.max_per_img)
    return _with_scores(_taken(boxes, best), best_scores), labels.gather(1, best)


def _kept_scores(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, limit: int
) -> Tensor:
    """Apply NMS to each class, and set the scores of all other boxes to 0.

    Args:
        boxes: (N, B, 4).
        scores: (N, C, B).
        iou_threshold: Overlap above which the box with the lower score goes.
        score_threshold: Score that a box must exceed.
        limit: Largest number of boxes of a class.

    Returns:
        The scores, (N, B).
    """
    operator = importlib.import_module("mmdeploy.mmcv.ops.nms").ONNXNMSop
    chosen = operator.apply(
        boxes,
        scores,
        limit,
        torch.tensor([iou_threshold], dtype=torch.float32),
        torch.tensor([score_threshold], dtype=torch.float32),
    )
    image, label, box = chosen[:, 0], chosen[:, 1], chosen[:, 2]
    kept = torch.zeros_like(scores[:, 0])
    kept[image, box] = scores[image, label, box]
    return kept


def _best(scores: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Return the scores above 0 and their indices, the best first, at most as many as the limit.

    All images get as many as the one with the most, and at least one, since a graph cannot go on
    with none: a score of 0 marks what fills up.
    """
    most = (scores > 0).sum(1).max().clamp(min=1, max=limit)
    return scores.topk(most, dim=1)  # type: ignore[arg-type]


def _taken(values: Tensor, indices: Tensor) -> Tensor:
    """Take rows of each image: (N, B, 4) at (N, P) gives (N, P, 4)."""
    return values.gather(1, indices.unsqueeze(-1).expand(-1, -1, 4))


def _with_scores(boxes: Tensor, scores: Tensor) -> Tensor:
    """Join boxes, (N, P, 4), and scores, (N, P), to (N, P, 5); zeros where the score is 0."""
    scores = scores.unsqueeze(-1)
    return torch.where(scores > 0, torch.cat([boxes, scores], -1), scores.new_zeros(()))
