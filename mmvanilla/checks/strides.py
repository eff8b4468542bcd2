"""Compare the strides of the maps that arrive at each head with those that it was built for.

A head multiplies with the strides of its config, whatever maps it gets: with others than these it
trains without an error, and finds nothing where it should.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from mmvanilla.checks.findings import Finding, fault, ok, warning
from mmvanilla.checks.forward import Map, Pass, find_core

SUBJECT = "strides"
# Where the heads of the toolboxes keep their strides, the first that is there counts.
_GENERATORS = ("prior_generator", "anchor_generator", "square_anchor_generator")
_ATTRIBUTES = ("featmap_strides", "feature_strides", "anchor_strides", "point_strides", "strides")
_HEADS = ("head", "extractor", "pixel_decoder")
_Pair = tuple[float, float]


class Consumer(NamedTuple):
    """A part of a model that was built for maps of certain strides.

    Attributes:
        name: Name of the module.
        module: The module.
        strides: Vertical and horizontal stride of each map.
    """

    name: str
    module: Any
    strides: list[_Pair]


def check_strides(model: nn.Module, passes: Sequence[Pass]) -> list[Finding]:
    """Compare the maps of some forward passes with the strides that each part was built for.

    Args:
        model: The model that ran.
        passes: What the runs showed, at several sizes of the image.

    Returns:
        A finding for each part that has strides and got maps.
    """
    findings = []
    for consumer in consumers(model):
        seen = [
            (run.size, maps)
            for run in passes
            if (maps := _maps_for(model, consumer, run)) and _is_large(run.size, consumer.strides)
        ]
        if seen:
            findings.append(_compare(consumer, seen))
    return findings + _check_transformer(model, passes)


def consumers(model: nn.Module) -> Iterator[Consumer]:
    """Find the heads, RoI extractors and decoders of a model that know strides."""
    prefix, core = find_core(model)
    outer: list[str] = []
    for name, module in core.named_modules():
        parts = name.split(".")
        last = next((part for part in reversed(parts) if not part.isdigit()), "")
        if parts[0] in ("backbone", "neck") or any(name.startswith(f"{o}.") for o in outer):
            continue
        is_stage = "rpn_head.stages." in name and parts[-1].isdigit()
        if not last.endswith(_HEADS) and not is_stage:
            continue
        strides = declared_strides(module)
        if strides:
            outer.append(name)
            yield Consumer(prefix + name, module, strides)


def declared_strides(module: Any) -> list[_Pair]:
    """Return the strides that a head was built for; an empty list if it has none."""
    for name in _GENERATORS:
        strides = getattr(getattr(module, name, None), "strides", None)
        if strides:
            return _pairs(strides)
    for name in _ATTRIBUTES:
        strides = getattr(module, name, None)
        if isinstance(strides, list | tuple) and strides:
            return _pairs(strides)
    return []


def _pairs(strides: Sequence[Any]) -> list[_Pair]:
    """Return (vertical, horizontal) strides; mmdet writes a pair as (horizontal, vertical)."""
    pairs = []
    for stride in strides:
        if isinstance(stride, list | tuple):
            pairs.append((float(stride[-1]), float(stride[0])))
        else:
            pairs.append((float(stride), float(stride)))
    return pairs


def _maps_for(model: nn.Module, consumer: Consumer, run: Pass) -> tuple[Map, ...]:
    maps = run.maps.get(consumer.name, ())
    if not maps and ("extractor" in consumer.name or "stages" in consumer.name):
        maps = run.features  # not run on its own
        if "semantic" in consumer.name:
            return ()
    resize = getattr(consumer.module, "resize_feats", None)
    if maps and callable(resize):  # SOLO changes the first and the last map
        with torch.no_grad():
            resized = resize([torch.zeros(1, *shape, device="meta") for shape in maps])
        maps = tuple(Map(*map_.shape[1:]) for map_ in resized)
    if isinstance(getattr(consumer.module, "in_index", None), list | tuple):
        chosen = consumer.module.in_index
        if all(-len(maps) <= index < len(maps) for index in chosen):
            maps = tuple(maps[index] for index in chosen)
    if "extractor" in consumer.name:  # the RoI head gives it as many maps as it has strides
        maps = maps[: len(consumer.strides)]
    return maps


def _is_large(size: tuple[int, int], strides: list[_Pair]) -> bool:
    return all(size[0] >= high and size[1] >= wide for high, wide in strides)


def _compare(consumer: Consumer, seen: list[tuple[tuple[int, int], tuple[Map, ...]]]) -> Finding:
    maps = seen[0][1]
    place = f"model.{consumer.name}"
    wanted = _written([high for high, _ in consumer.strides])
    real = _written(_real_strides(seen))
    fits = len(maps) == len(consumer.strides) and all(
        _fits(size, map_, stride)
        for size, found in seen
        for map_, stride in zip(found, consumer.strides, strict=False)
    )
    if fits:
        return ok(SUBJECT, f"{place} is built for the strides {wanted} and gets them")
    missing = len(maps) - len(consumer.strides)
    count = ""
    if missing > 0:
        count = f", {len(maps)} maps for {len(consumer.strides)} strides"
    elif missing < 0:
        count = f", only {len(maps)} of {len(consumer.strides)} maps"
    return fault(
        SUBJECT,
        f"{place} is built for maps of the strides {wanted}, but gets {real}{count}",
        "choose out_indices of the backbone and in_channels (start_level, num_outs) of the neck "
        "so that they give these strides, or correct the strides of the head",
        certain=True,
    )


def _fits(size: tuple[int, int], map_: Map, stride: _Pair) -> bool:
    return all(
        math.floor(pixels / step) <= count <= math.ceil(pixels / step)
        # Strides that were measured at one size, as those of YOLACT, are near others at another.
        or 0.75 < pixels / count / step < 1.33
        for pixels, count, step in zip(size, (map_.height, map_.width), stride, strict=True)
    )


def _real_strides(seen: list[tuple[tuple[int, int], tuple[Map, ...]]]) -> list[float]:
    size, maps = max(seen, key=lambda item: item[0])
    return [size[0] / map_.height for map_ in maps]


def _written(strides: Sequence[float]) -> str:
    return ", ".join(f"{stride:.3g}" for stride in strides)


def _check_transformer(model: nn.Module, passes: Sequence[Pass]) -> list[Finding]:
    """Check the number of maps of a detector with deformable attention, which has no strides."""
    prefix, core = find_core(model)
    expected = getattr(core, "num_feature_levels", None)
    run = next((run for run in passes if run.features), None)
    if not isinstance(expected, int) or run is None:
        return []
    strides = [run.size[0] / map_.height for map_ in run.features]
    place = f"model.{prefix}num_feature_levels"
    if len(strides) != expected:
        return [
            fault(
                SUBJECT,
                f"{place} is {expected}, but the neck gives {len(strides)} maps, of the strides "
                f"{_written(strides)}",
                f"set model.neck.num_outs={expected}, or num_feature_levels and every num_levels "
                f"of the encoder and decoder to {len(strides)}",
                certain=True,
            )
        ]
    usual = 8.0 if expected < 5 else 4.0
    if strides[0] < usual:
        return [
            warning(
                SUBJECT,
                f"the transformer's {expected} maps have the strides {_written(strides)}; it is "
                f"usually built for {usual:g} and coarser ones, and a finer one takes about four "
                "times the memory",
                "leave the finest level out: out_indices=(1, 2, 3) and the in_channels of these "
                "levels in the neck",
            )
        ]
    return [ok(SUBJECT, f"{place} is {expected}, and the strides are {_written(strides)}")]
