"""Compare the number of classes of the heads with the classes of the data sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from mmvanilla.checks.data_sets import class_names
from mmvanilla.checks.findings import Finding, fault, ok, warning
from mmvanilla.checks.forward import find_core

_HEADS = ("bbox_head", "mask_head", "decode_head", "auxiliary_head", "head", "panoptic_head")
# Proposals know objects from background only, and STDC's other head finds borders.
_OTHERS = ("RPNHead", "STDCHead")


def check_classes(model: nn.Module, place: str, dataset: Any) -> list[Finding]:
    """Compare ``num_classes`` of each head with the classes of a data set.

    Args:
        model: The model, also on the meta device.
        place: What the data are, in words.
        dataset: The data set, built.
    """
    findings = []
    names = class_names(dataset)
    heads = list(_heads(model)) if names else []
    things = getattr(dataset, "metainfo", {}).get("thing_classes")
    for entry, count in heads:
        of_boxes = entry.endswith(("bbox_head.num_classes", "mask_head.num_classes"))
        expected = len(things) if things and of_boxes else len(names)
        if count != expected:
            text = f"{entry} is {count}, but the {place} have {expected} classes"
            remedy = f"set {entry}={expected}, or metainfo=dict(classes=...) of the data"
            is_harmless = count > expected and not of_boxes
            findings.append((warning if is_harmless else fault)("classes", text, remedy))
    if heads and not findings:
        findings.append(ok("classes", f"heads and {place} have {heads[0][1]} classes"))
    return findings


def count_of_heads(model: nn.Module | None) -> int | None:
    """Return the number of labels that all heads have outputs for; None if unknown."""
    return min((count for _, count in _heads(model)), default=None) if model else None


def _heads(model: nn.Module) -> Iterator[tuple[str, int]]:
    """List the heads that know the number of classes: the name of the entry, and its value."""
    prefix, core = find_core(model)
    for name, module in core.named_modules():
        parts = [part for part in name.split(".") if not part.isdigit()]
        is_head = parts and parts[-1] in _HEADS and parts[:-1] in ([], ["roi_head"])
        kinds = {kind.__name__ for kind in type(module).__mro__}
        if not is_head or kinds & {*_OTHERS, "ModuleList"}:
            continue
        if hasattr(module, "num_things_classes"):
            count = module.num_things_classes + getattr(module, "num_stuff_classes", 0)
            yield f"model.{prefix}{name}.num_things_classes + num_stuff_classes", count
            continue
        count = getattr(module, "num_classes", None)
        if isinstance(count, int) and not getattr(module, "class_agnostic", False):
            yield f"model.{prefix}{name}.num_classes", count
