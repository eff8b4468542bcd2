"""Count the parameters and multiply-accumulates (MACs) of a model, by torch's own counter.

mmengine's get_model_complexity_info traces the model, which fails on the meta device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.apis.model import TensorModel, build_on_meta, fixed_input_size, input_channels

FORMS = ("training", "deploy")
# Height and width in pixels that the tables of each toolbox are for.
_SIZES = {"mmdet": (800, 1280), "mmseg": (512, 512)}
# The inputs of an RoI head if the config does not say otherwise: the defaults of the toolbox.
_REGIONS = {"bbox_head": ("rpn", 1000), "mask_head": ("rcnn", 100)}


class Complexity(NamedTuple):
    """Parameters of a model, and MACs of one forward pass of one image."""

    params: int
    macs: int


class Count(NamedTuple):
    """Parameters and MACs of one part of a model, such as its neck, in one of the two forms."""

    form: str
    part: str
    params: int
    macs: int


def measure_complexity(model: nn.Module, size: tuple[int, int] = (224, 224)) -> Complexity:
    """Count a model's parameters, and the MACs of its ``TensorModel`` for one image.

    Args:
        model: A model of any toolbox, or a bare backbone, in eval mode; on the meta device, too.
        size: Height and width in pixels.
    """
    device = next(model.parameters()).device
    images = torch.zeros(1, input_channels(model), *size, device=device)
    return Complexity(_count_params(model), count_macs(TensorModel(model), images))


def count_macs(module: nn.Module, *inputs: Any) -> int:
    """Count the multiply-accumulates of convolutions and matrix products in ``module(*inputs)``."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(*inputs)
    return counter.get_total_flops() // 2  # torch counts a multiplication and an addition as two


def count_config(
    cfg: Config, size: tuple[int, int] | None = None, forms: tuple[str, ...] = FORMS
) -> tuple[list[Count], tuple[int, int]]:
    """Count the model of a config and each head of a detector, without allocating weights.

    An RoI head is counted as at inference, with as many proposals and masks as ``test_cfg`` allows.

    Args:
        cfg: Config of a model of any of the three toolboxes.
        size: Height and width in pixels. None: the only size that the model accepts, or else the
            usual one of its toolbox: 800×1280, 512×512 or 224×224.
        forms: Forms to count, from :data:`FORMS`.

    Returns:
        The counts, and the height and width of their image.

    Raises:
        ValueError: The height or width is below 1, or the model cannot be built.
    """
    if size is not None and min(size) < 1:
        raise ValueError(f"shape: height and width must be at least 1, found {size}")
    counts: list[Count] = []
    for form in forms:
        model = build_on_meta(cfg if form == "training" else deploy_config(cfg)).eval()
        usual = _SIZES.get(cfg.get("default_scope", ""), (224, 224))
        size = size or fixed_input_size(model) or usual
        whole = measure_complexity(model, size)
        heads = [Count(form, *head) for head in _detection_heads(model, size)]
        total = whole.macs + sum(head.macs for head in heads)
        if heads:
            trunk = whole.params - sum(head.params for head in heads)
            counts += [Count(form, "backbone and neck", trunk, whole.macs), *heads]
        counts.append(Count(form, "whole model", whole.params, total))
    assert size is not None
    return counts, size


def _detection_heads(model: Any, size: tuple[int, int]) -> Iterator[tuple[str, int, int]]:
    dense = [name for name in ("rpn_head", "bbox_head") if getattr(model, name, None) is not None]
    if dense:
        images = torch.zeros(1, input_channels(model), *size, device="meta")
        with torch.no_grad():
            features = TensorModel(model)(images)
        for name in dense:
            head = getattr(model, name)
            yield name, _count_params(head), count_macs(head, features)
    roi_head: Any = getattr(model, "roi_head", None)
    for name, (source, default) in _REGIONS.items():
        head = getattr(roi_head, name, None)
        if head is None:
            continue
        # Masks may share the extractor of the boxes; the stages of a cascade have one each.
        extractor: Any = getattr(roi_head, f"{name[:4]}_roi_extractor", None)
        extractor = extractor or roi_head.bbox_roi_extractor
        extractor = extractor[0] if isinstance(extractor, nn.ModuleList) else extractor
        number = ((model.test_cfg or {}).get(source) or {}).get("max_per_img", default)
        area = extractor.roi_layers[0].output_size
        regions = torch.zeros(number, extractor.out_channels, *area, device="meta")
        stages = head if isinstance(head, nn.ModuleList) else [head]
        macs = sum(count_macs(stage, regions) for stage in stages)
        yield f"{name}, {number} regions", _count_params(head), macs


def _count_params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
