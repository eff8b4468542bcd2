"""Compare the strides of the maps that arrive at each head with those that it was built for.

A head multiplies with the strides of its config, whatever maps it gets: with others than these it
trains without an error, and finds nothing where it should.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from mmvanilla.checks.findings import Finding, fault, ok
from mmvanilla.checks.forward import Pass, find_core

SUBJECT = "strides"
# Where the heads of the toolboxes keep their strides: the first that is there counts.
_GENERATORS = ("prior_generator", "anchor_generator", "square_anchor_generator")
_ATTRIBUTES = ("featmap_strides", "feature_strides", "anchor_strides", "point_strides", "strides")
_HEADS = ("head", "extractor", "pixel_decoder")
_REMEDY = (
    "choose out_indices of the backbone and in_channels (start_level, num_outs) of the neck so "
    "that they give these strides, or correct the strides of the head"
)


def check_strides(model: nn.Module, run: Pass) -> list[Finding]:
    """Compare the maps of a forward pass with the strides that each part was built for.

    Args:
        model: The model that ran.
        run: What the run showed.

    Returns:
        A finding for each part that has strides and got maps.
    """
    findings = []
    for name, module, strides in _consumers(model):
        maps = run.shapes.get(name) or ([] if "head" in name.split(".")[-1] else run.features)
        index = getattr(module, "in_index", None)
        if isinstance(index, list | tuple) and all(
            -len(maps) <= each < len(maps) for each in index
        ):
            maps = [maps[each] for each in index]
        if "extractor" in name:  # the RoI head gives it as many maps as it has strides
            maps = maps[: len(strides)]
            channels = [shape[1] for shape in maps]
            if maps and set(channels) != {module.out_channels}:
                text = f"model.{name}.out_channels is {module.out_channels}, but maps of "
                remedy = f"set out_channels={channels[0]} there, and in_channels of its head"
                text += f"{channels} channels arrive"
                findings.append(fault("channels and levels", text, remedy, certain=True))
        # Some heads resize their maps first, and one stride may be that of masks.
        is_other = hasattr(module, "resize_feats") or (len(strides) == 1 < len(maps))
        if maps and not is_other and all(len(shape) == 4 for shape in maps):
            findings.append(_compare(name, strides, maps, run.size))
    return findings + _check_levels(model, run)


def _consumers(model: nn.Module) -> Iterator[tuple[str, Any, list[tuple[float, float]]]]:
    """Find the heads, RoI extractors and decoders of a model that know strides."""
    prefix, core = find_core(model)
    outer: tuple[str, ...] = ("backbone.", "neck.")
    for name, module in core.named_modules():
        last = name.rstrip(".0123456789").split(".")[-1]
        if name.startswith(outer) or not (last.endswith(_HEADS) or last == "stages"):
            continue
        strides = _declared_strides(module)
        if strides:
            outer += (f"{name}.",)
            yield prefix + name, module, strides


def _declared_strides(module: Any) -> list[tuple[float, float]]:
    """Return the (vertical, horizontal) strides of a head; mmdet writes (horizontal, vertical)."""
    found = [getattr(getattr(module, name, None), "strides", None) for name in _GENERATORS]
    found += [getattr(module, name, None) for name in _ATTRIBUTES]
    strides = next((each for each in found if isinstance(each, list | tuple) and each), ())
    pairs = [each if isinstance(each, list | tuple) else (each, each) for each in strides]
    return [(float(pair[-1]), float(pair[0])) for pair in pairs]


def _compare(
    name: str, strides: list[tuple[float, float]], maps: list[torch.Size], size: tuple[int, int]
) -> Finding:
    wanted = ", ".join(f"{high:g}" for high, _ in strides)
    fits = len(maps) == len(strides) and all(
        # Rounded sizes, and strides that were measured at one size, as those of YOLACT.
        abs(pixels / count / step - 1) < 0.3 or abs(pixels / step - count) <= 1
        for shape, stride in zip(maps, strides, strict=False)
        for pixels, count, step in zip(size, shape[2:], stride, strict=True)
    )
    if fits:
        return ok(SUBJECT, f"model.{name} is built for the strides {wanted} and gets them")
    real = ", ".join(f"{size[0] / shape[2]:.3g}" for shape in maps)
    text = f"model.{name} is built for maps of the strides {wanted}, but gets {real}"
    return fault(SUBJECT, text, _REMEDY, certain=True)


def _check_levels(model: nn.Module, run: Pass) -> list[Finding]:
    """Count the maps of a detector with deformable attention, which has no strides."""
    prefix, core = find_core(model)
    expected = getattr(core, "num_feature_levels", None)
    if not isinstance(expected, int) or not run.features or len(run.features) == expected:
        return []
    text = f"model.{prefix}num_feature_levels is {expected}, but the neck gives {len(run.features)}"
    remedy = f"set model.neck.num_outs={expected}, or all numbers of levels to the neck's"
    return [fault(SUBJECT, text, remedy, certain=True)]
