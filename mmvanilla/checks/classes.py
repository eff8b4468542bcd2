"""Compare the number of classes of the heads with the classes of the data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from mmvanilla.apis.data_checks import class_of_dataset, find_datasets
from mmvanilla.checks.findings import Finding, fault, ok, warning
from mmvanilla.checks.forward import find_core

SUBJECT = "classes"
_HEADS = ("bbox_head", "mask_head", "decode_head", "auxiliary_head", "head", "panoptic_head")


def check_classes(cfg: Config, model: nn.Module) -> list[Finding]:
    """Compare ``num_classes`` of each head with the classes of each data set.

    Data sets that take their classes from the names of folders are compared by the check of the
    data.

    Args:
        cfg: The config.
        model: The model that was built from it, also on the meta device.
    """
    heads = list(_heads(model))
    findings: list[Finding] = []
    for loader in ("train_dataloader", "val_dataloader"):
        for node in find_datasets(cfg.get(loader)):
            if _is_a(class_of_dataset(node), "BaseVideoDataset"):
                continue  # tracking: its classes are those of the data, not of the detector
            classes = _classes(node)
            if isinstance(classes, str):
                findings.append(
                    fault(
                        SUBJECT,
                        f"{loader}: metainfo.classes is the text {classes!r}, whose letters would "
                        "be the classes",
                        f"write a tuple: classes=({classes!r},)",
                    )
                )
            elif classes is not None:
                findings += [
                    _compare(loader, node, _expected(node, classes, entry), entry, count)
                    for entry, count in heads
                ]
    wrong = [item for item in findings if item.status != "ok"]
    if findings and not wrong:
        counts = sorted({count for _, count in heads})
        findings = [ok(SUBJECT, f"heads and data sets have {counts[0]} classes")] * bool(counts)
    return list(dict.fromkeys(wrong or findings))


def _heads(model: nn.Module) -> Iterator[tuple[str, int]]:
    """List the heads that know the number of classes: the name of the entry, and its value."""
    prefix, core = find_core(model)
    for name, module in core.named_modules():
        parts = [part for part in name.split(".") if not part.isdigit()]
        is_head = parts and parts[-1] in _HEADS and parts[:-1] in ([], ["roi_head"])
        # Proposals know objects from background only, and STDC's other head finds borders.
        is_other = any(_is_a(type(module), other) for other in ("RPNHead", "STDCHead"))
        if not is_head or isinstance(module, nn.ModuleList) or is_other:
            continue
        things = getattr(module, "num_things_classes", None)
        count = getattr(module, "num_classes", None)
        if getattr(module, "class_agnostic", False):
            continue
        if isinstance(things, int) and parts[-1] != "decode_head":
            stuff = getattr(module, "num_stuff_classes", 0)
            yield f"model.{prefix}{name}.num_things_classes + num_stuff_classes", things + stuff
        elif isinstance(count, int):
            yield f"model.{prefix}{name}.num_classes", count


def _compare(
    loader: str, node: Mapping[str, Any], expected: int, entry: str, found: int
) -> Finding:
    data = f"the data of {loader} ({_name(node)}) have {expected} classes"
    if found == expected:
        return ok(SUBJECT, f"{entry} is {found}, and {data}")
    if found < expected:
        return fault(
            SUBJECT,
            f"{entry} is {found}, but {data}: labels from {found} on have no output",
            f"set {entry}={expected}, or name the classes of your own: "
            f"{loader}.dataset.metainfo=dict(classes=(...))",
        )
    is_detector = "bbox_head" in entry or "mask_head" in entry
    return (fault if is_detector else warning)(
        SUBJECT,
        f"{entry} is {found}, but {data}: the outputs from {expected} on are never trained"
        + (", and the metric cannot name them" if is_detector else ""),
        f"set {entry}={expected}",
    )


def _expected(node: Mapping[str, Any], classes: Any, entry: str) -> int:
    """Return the number of classes that a head must have: of boxes, only those of things."""
    things = (getattr(class_of_dataset(node), "METAINFO", None) or {}).get("thing_classes")
    own = (node.get("metainfo") or {}).get("classes")
    is_of_boxes = entry.endswith(("bbox_head.num_classes", "mask_head.num_classes"))
    return len(things) if things and own is None and is_of_boxes else len(classes)


def _classes(node: Mapping[str, Any]) -> Any:
    """Return the classes of a data set: a sequence, the text that is wrongly given, or None."""
    given = (node.get("metainfo") or {}).get("classes")
    if given is None:
        kind = class_of_dataset(node)
        given = (getattr(kind, "METAINFO", None) or {}).get("classes")
    if isinstance(given, str):
        path = Path(given)
        if not path.is_file():
            return given if not path.suffix and "/" not in given else None
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return given if isinstance(given, list | tuple) else None


def _name(node: Mapping[str, Any]) -> str:
    kind = node.get("type")
    return getattr(kind, "__name__", str(kind))


def _is_a(kind: type | None, name: str) -> bool:
    """Tell whether a class is one of a toolbox, without importing the toolbox."""
    return any(base.__name__ == name for base in getattr(kind, "__mro__", ()))
