"""Count the parameters and multiply-accumulates (MACs) of a model, by torch's own counter.

mmengine's get_model_complexity_info traces the model, which fails on the meta device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmvanilla.apis.config import toolbox_of
from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.apis.model import (
    TensorModel,
    build_on_meta,
    fixed_input_size,
    gives_logits,
    input_channels,
)

FORMS = ("training", "deploy")
# Height and width in pixels that the tables of each toolbox are for.
_SIZES = {"mmdet": (800, 1280), "mmseg": (512, 512)}
_UNKNOWN = ", MACs unknown"
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
    like = next(model.parameters())
    images = like.new_zeros(1, input_channels(model), *size)
    return Complexity(_count_params(model), count_macs(TensorModel(model), images))


def count_macs(module: nn.Module, *inputs: Any) -> int:
    """Count the multiply-accumulates of convolutions and matrix products in ``module(*inputs)``."""
    deform = getattr(torch.ops.torchvision, "deform_conv2d", None)
    flops = lambda x, weight, *_, out_shape, **__: 2 * math.prod(out_shape) * math.prod(weight[1:])  # noqa: E731
    counter = FlopCounterMode(display=False, custom_mapping=deform and {deform: flops})
    with torch.no_grad(), counter:
        module(*inputs)
    return counter.get_total_flops() // 2  # torch counts a multiplication and an addition as two


def count_config(
    cfg: Config, size: tuple[int, int] | None = None, forms: tuple[str, ...] = FORMS
) -> tuple[list[Count], tuple[int, int]]:
    """Count the model of a config and each head of a detector, without allocating weights.

    An RoI head is counted as at inference, with as many proposals and masks as ``test_cfg`` allows.
    A part that takes more than maps, such as the transformer of a DETR, is named, with 0 MACs.

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
        usual = _SIZES.get(toolbox_of(cfg) or "", (224, 224))
        size = size or fixed_input_size(model) or usual
        whole = measure_complexity(model, size)
        heads = [Count(form, *head) for head in _heads(model, size)]
        total = whole.macs + sum(head.macs for head in heads)
        if heads:
            trunk = whole.params - sum(head.params for head in heads)
            counts += [Count(form, "backbone and neck", trunk, whole.macs), *heads]
        is_known = not any(head.part.endswith(_UNKNOWN) for head in heads)
        part = "whole model" if is_known else "whole model, known MACs"
        counts.append(Count(form, part, whole.params, total))
    assert size is not None
    return counts, size


def _heads(model: Any, size: tuple[int, int]) -> Iterator[tuple[str, int, int]]:
    """Count what a ``TensorModel`` does not run; of what takes more than maps, parameters only."""
    if gives_logits(model) or not hasattr(model, "extract_feat"):
        return
    with torch.no_grad():
        features = TensorModel(model)(torch.zeros(1, input_channels(model), *size, device="meta"))
    roi_head: Any = getattr(model, "roi_head", None) or nn.Module()
    regions = list(region_heads(roi_head))
    for name, head in [*model.named_children(), *roi_head.named_children()]:
        params, label, number = _count_params(head), name, 1
        if name in ("backbone", "neck", "roi_head") or not params:
            continue
        stages = head if isinstance(head, nn.ModuleList) else [head]
        calls = [(stage, features) for stage in stages]
        if head is getattr(roi_head, name, None):
            source, usual = _REGIONS.get(name, ("", 0))
            number = ((model.test_cfg or {}).get(source) or {}).get("max_per_img", usual)
            calls = [(part, region) for kind, part, region in regions if kind == name]
            label = f"{name}, {number} regions" if calls else name
        try:
            macs = number * sum([count_macs(*call) for call in calls])
            is_known = bool(calls) or name == "shared_head"  # counted with the heads behind it
        except Exception:  # whatever a head raises that takes queries, for one
            macs, is_known = 0, False
        yield label if is_known else f"{name}{_UNKNOWN}", params, macs


def region_heads(
    roi_head: Any, device: Any = "meta"
) -> Iterator[tuple[str, nn.Sequential, torch.Tensor]]:
    """List the stages of box and mask heads behind their shared head: name, part, a region."""
    shared = getattr(roi_head, "shared_head", None) or nn.Identity()
    for name in _REGIONS:
        head = getattr(roi_head, name, None)
        # Masks may share the extractor of the boxes; the stages of a cascade have one each.
        extractor: Any = getattr(roi_head, f"{name[:4]}_roi_extractor", None)
        extractor = extractor or getattr(roi_head, "bbox_roi_extractor", None)
        extractor = extractor[0] if isinstance(extractor, nn.ModuleList) else extractor
        layers = getattr(extractor, "roi_layers", None)
        if head is not None and layers:
            region = torch.zeros(1, extractor.out_channels, *layers[0].output_size, device=device)
            for stage in head if isinstance(head, nn.ModuleList) else [head]:
                yield name, nn.Sequential(shared, stage), region


def _count_params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
