"""Say which entry of the config is to blame for an error of a forward pass, and what to write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from mmvanilla.checks.findings import Finding, fault, listed, warning
from mmvanilla.checks.forward import Failure, Map, Pass
from mmvanilla.utils.known_errors import ChannelMismatch, explain_known, find_channel_mismatch

SUBJECT = "channels and levels"
_LONG = 160  # characters of an error that is not understood


class Place(NamedTuple):
    """A dict of the config's model.

    Attributes:
        path: Place in the config, such as ``model.neck``.
        node: The dict.
    """

    path: str
    node: Mapping[str, Any]


def explain_failures(model_cfg: Any, run: Pass) -> list[Finding]:
    """Explain the errors of a forward pass.

    Args:
        model_cfg: The config's model.
        run: What the forward pass showed.

    Returns:
        A fault for each error that is understood, and a warning for each other one.
    """
    return [_explain(model_cfg, run, failure) for failure in run.failures]


def _explain(model_cfg: Any, run: Pass, failure: Failure) -> Finding:
    message = " ".join(str(failure.error).split())
    mismatch = find_channel_mismatch(message)
    for name in failure.modules:
        place = _place(model_cfg, name)
        if place is None:
            continue
        maps = run.maps.get(name, ())
        finding = _number_of_maps(place, maps, failure.error)
        if finding is None and mismatch is not None:
            finding = _channels(place, maps, mismatch) or _region_size(place, maps)
        if finding is not None:
            return finding
    known = explain_known(message)
    where = f"model.{failure.modules[-1] if failure.modules else failure.part}"
    if known is not None:
        is_size = "too small" in known.what
        height, width = run.size
        size = f" (an image of {height}x{width} pixels, height x width)" if is_size else ""
        return fault(SUBJECT, f"{where}: {known.what}{size}", known.remedy, certain=not is_size)
    reason = message or f"{type(failure.error).__name__} without a message"
    return warning(
        SUBJECT,
        f"model.{failure.part} could not be run here, so it and what follows were not checked "
        f"(in {where}: {reason[:_LONG]})",
        "if training fails in the same way, correct this part of the config",
    )


def _place(model_cfg: Any, name: str) -> Place | None:
    """Find the dict of the config that a module was built from, if it is one of the config's."""
    node: Any = model_cfg
    path = "model"
    for part in name.split("."):
        if isinstance(node, Mapping) and part in node:
            node, path = node[part], f"{path}.{part}"
        elif isinstance(node, list | tuple) and part.isdigit() and int(part) < len(node):
            node, path = node[int(part)], f"{path}[{part}]"
        elif not (part.isdigit() and isinstance(node, Mapping)):  # one dict for several modules
            return None
    return Place(path, node) if isinstance(node, Mapping) and path != "model" else None


def _number_of_maps(place: Place, maps: tuple[Map, ...], error: Exception) -> Finding | None:
    """A neck or head that got another number of maps than its lists are long."""
    channels, indices = place.node.get("in_channels"), place.node.get("in_index")
    found = listed([map_.channels for map_ in maps])
    if isinstance(error, IndexError) and maps and indices is not None:
        wanted = [indices] if isinstance(indices, int) else list(indices)
        if any(not -len(maps) <= index < len(maps) for index in wanted):
            return fault(
                SUBJECT,
                f"{place.path}.in_index is {listed(indices)}, but only {len(maps)} maps arrive "
                f"(channels {found})",
                f"choose in_index from 0 to {len(maps) - 1}, or add levels to out_indices of the "
                "backbone",
                certain=True,
            )
    if not isinstance(channels, list | tuple) or indices is not None or not maps:
        return None
    if len(channels) != len(maps):
        is_backbone_map = "neck" in place.path or "decoder" in place.path
        return fault(
            SUBJECT,
            f"{place.path}.in_channels is {listed(channels)}, for {len(channels)} maps, but "
            f"{len(maps)} arrive, of {found} channels",
            f"set {place.path}.in_channels={found}"
            + (f", or {len(channels)} levels in out_indices of the backbone" * is_backbone_map),
            certain=True,
        )
    return None


def _channels(place: Place, maps: tuple[Map, ...], mismatch: ChannelMismatch) -> Finding | None:
    """An entry of the config whose number of channels is not that of the map that arrives."""
    for key, value in place.node.items():
        if not str(key).endswith("in_channels"):
            continue
        counts = [map_.channels for map_ in maps]
        fitting = _fitting(key, value, place.node.get("in_index"), counts, mismatch)
        if fitting is not None and fitting != value:
            arriving = f"maps of {listed(counts)} channels arrive"
            return fault(
                SUBJECT,
                f"{place.path}.{key} is {listed(value)}, but "
                f"{arriving if maps else f'{fitting} channels arrive'}",
                f"set {place.path}.{key}={listed(fitting)}",
                certain=True,
            )
    return None


def _fitting(
    key: str, value: Any, index: Any, counts: list[int], mismatch: ChannelMismatch
) -> int | list[int] | None:
    """Return what an entry must be; None if it does not decide, or that is unknown."""
    indices = [index] if isinstance(index, int) else index
    in_range = all(-len(counts) <= i < len(counts) for i in indices or ())
    if isinstance(value, list | tuple):
        if key != "in_channels" or not in_range:
            return None
        chosen = counts if indices is None else [counts[i] for i in indices]
        return chosen if len(chosen) == len(value) and chosen != list(value) else None
    if not isinstance(value, int):
        return None
    if key == "in_channels" and isinstance(index, int) and counts and in_range:
        return counts[index]
    if key == "in_channels" and len(set(counts)) == 1:
        return counts[0]
    # Such as c1_in_channels of DeepLabV3+, which is for the first map.
    return mismatch.found if mismatch.expected == value else None


def _region_size(place: Place, maps: tuple[Map, ...]) -> Finding | None:
    """A head of regions that was built for regions of another size."""
    size = place.node.get("roi_feat_size")
    if size is None or len(maps) != 1:
        return None
    expected = (size, size) if isinstance(size, int) else tuple(size)
    found = (maps[0].height, maps[0].width)
    if found == expected:
        return None
    return fault(
        SUBJECT,
        f"{place.path}.roi_feat_size is {size}, but the RoI extractor gives {found[0]}x{found[1]}",
        f"set {place.path}.roi_feat_size={found[0]}, or roi_layer.output_size of the extractor",
        certain=True,
    )


def check_extractors(model: nn.Module, run: Pass) -> list[Finding]:
    """Compare the channels of the maps with those that RoI extractors were built for.

    Args:
        model: The model that ran.
        run: What the forward pass showed.
    """
    findings = []
    for name, module in model.named_modules():
        if not any(part.endswith("roi_extractor") for part in name.split(".")[-2:]):
            continue
        strides: Any = getattr(module, "featmap_strides", None)
        channels = getattr(module, "out_channels", None)
        maps = run.maps.get(name, ())
        if not maps and "semantic" not in name and isinstance(strides, list | tuple):
            maps = run.features[: len(strides)]
        if not isinstance(channels, int) or not maps:
            continue
        counts = [map_.channels for map_ in maps]
        if set(counts) != {channels}:
            findings.append(
                fault(
                    SUBJECT,
                    f"model.{name}.out_channels is {channels}, but maps of {listed(counts)} "
                    "channels arrive",
                    f"set out_channels={counts[0]} there, and in_channels={counts[0]} in its head",
                    certain=len(counts) > 1,
                )
            )
    return findings
