"""Count the parameters and multiply-accumulates (MACs) of a model.

This uses torch's own counter, since mmengine's get_model_complexity_info traces the model, which
fails on the meta device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.apis.model import (
    DEFAULT_SIZES,
    TensorModel,
    build_on_meta,
    fixed_input_size,
    input_channels,
)

FORMS = ("training", "deploy")
# The inputs of an RoI head if the config does not say otherwise: the defaults of the toolbox.
_PROPOSALS, _DETECTIONS = 1000, 100


class Complexity(NamedTuple):
    """The size of a model and the amount of its computations.

    Attributes:
        params: Number of parameters of the whole model.
        macs: Number of multiply-accumulates of convolutions and matrix products in one forward pass
            of one image (what OpenMMLab's tables call FLOPs).
    """

    params: int
    macs: int


def measure_complexity(model: nn.Module, size: tuple[int, int] = (224, 224)) -> Complexity:
    """Count a model's parameters, and its MACs for one image.

    The MACs are those of a :class:`~mmvanilla.apis.model.TensorModel`. The model may be on the meta
    device.

    Args:
        model: A model of any toolbox, or a bare backbone.
        size: Height and width in pixels. Default: 224×224.
    """
    device = next(model.parameters()).device
    inputs = torch.zeros(1, input_channels(model), *size, device=device)
    was_training = model.training
    model.eval()
    try:
        macs = count_macs(TensorModel(model), inputs)
    except RuntimeError as error:
        if "too small" not in str(error):
            raise
        raise ValueError(
            f"shape: an input of {size[0]}x{size[1]} pixels (height x width) is too small for "
            "this model's last layers; give a larger one"
        ) from error
    finally:
        model.train(was_training)
    return Complexity(_count_params(model), macs)


def count_macs(module: nn.Module, *inputs: Any) -> int:
    """Count the multiply-accumulates of convolutions and matrix products in one forward pass.

    Args:
        module: A module of any kind, on any device.
        inputs: Arguments of its forward method.

    Returns:
        The number of multiply-accumulates, for all images of the inputs together.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(*inputs)
    return counter.get_total_flops() // 2  # torch counts a multiplication and an addition as two


class Count(NamedTuple):
    """The size of one part of a model in one form.

    Attributes:
        form: Form of the model, ``'training'`` or ``'deploy'``.
        part: Name of the part, such as ``'backbone and neck'`` or ``'whole model'``.
        params: Number of parameters of the part.
        macs: Number of multiply-accumulates of convolutions and matrix products for one image; one
            is two floating-point operations.
    """

    form: str
    part: str
    params: int
    macs: int


def count_config(
    cfg: Config, size: tuple[int, int] | None = None, forms: tuple[str, ...] = FORMS
) -> tuple[list[Count], tuple[int, int]]:
    """Count the model of a config and each head of a detector, without allocating weights.

    An RoI head is counted as at inference, with as many proposals and masks as ``test_cfg`` allows.

    Args:
        cfg: Config of a model of any of the three toolboxes.
        size: Height and width of the image in pixels. None: the only size that the model accepts,
            or else the usual one of the toolbox (:data:`DEFAULT_SIZES`).
        forms: Forms to count, from :data:`FORMS`. Default: both.

    Returns:
        The counts, and the height and width of their image.

    Raises:
        ValueError: The height or width is below 1 or too small for the model, or the model cannot
            be built.
    """
    scope = cfg.get("default_scope", "mmengine")
    init_default_scope(scope)
    if size is not None and min(size) < 1:
        raise ValueError(f"shape: height and width must be at least 1, found {size}")
    counts: list[Count] = []
    for form in forms:
        model = build_on_meta(cfg if form == "training" else deploy_config(cfg)).eval()
        size = size or fixed_input_size(model) or DEFAULT_SIZES.get(scope, (224, 224))
        counts += _count_model(model, form, size)
    assert size is not None
    return counts, size


def _count_model(model: nn.Module, form: str, size: tuple[int, int]) -> list[Count]:
    whole = measure_complexity(model, size)
    heads = [
        Count(form, name, _count_params(head), macs)
        for name, head, macs in _detection_heads(model, size)
    ]
    if not heads:
        return [Count(form, "whole model", whole.params, whole.macs)]
    trunk = whole.params - sum(count.params for count in heads)
    total = whole.macs + sum(count.macs for count in heads)
    return [
        Count(form, "backbone and neck", trunk, whole.macs),
        *heads,
        Count(form, "whole model", whole.params, total),
    ]


def _detection_heads(model: Any, size: tuple[int, int]) -> list[tuple[str, nn.Module, int]]:
    if not hasattr(model, "bbox_head") and not hasattr(model, "roi_head"):
        return []
    images = torch.zeros(1, input_channels(model), *size, device="meta")
    with torch.no_grad():
        features = TensorModel(model)(images)
    heads = []
    for name in ("rpn_head", "bbox_head"):
        head = getattr(model, name, None)
        if isinstance(head, nn.Module):
            heads.append((name, head, count_macs(head, features)))
    roi_head = getattr(model, "roi_head", None)
    if roi_head is not None:
        proposals = _limit(model.test_cfg, "rpn", _PROPOSALS)
        detections = _limit(model.test_cfg, "rcnn", _DETECTIONS)
        for kind, regions in (("bbox", proposals), ("mask", detections)):
            head = getattr(roi_head, f"{kind}_head", None)
            if not isinstance(head, nn.Module):
                continue
            extractor: Any = getattr(roi_head, f"{kind}_roi_extractor", None)
            if not isinstance(extractor, nn.Module):  # masks may share that of the boxes
                extractor = roi_head.bbox_roi_extractor
            stages = list(head) if isinstance(head, nn.ModuleList) else [head]
            if isinstance(extractor, nn.ModuleList):
                extractor = extractor[0]
            output_size = extractor.roi_layers[0].output_size
            regions_seen = torch.zeros(regions, extractor.out_channels, *output_size, device="meta")
            macs = sum(count_macs(stage, regions_seen) for stage in stages)
            heads.append((f"{kind}_head, {regions} regions", head, macs))
    return heads


def _limit(test_cfg: Any, part: str, default: int) -> int:
    return int(((test_cfg or {}).get(part) or {}).get("max_per_img", default))


def _count_params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
