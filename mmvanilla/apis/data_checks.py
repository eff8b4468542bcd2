"""Whether the data that a config names is there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config


def require_data(cfg: Config, config: str, *dataloaders: str) -> None:
    """Refuse a config whose data set is not where it expects it.

    Args:
        cfg: The config.
        config: Its name, for the message.
        dataloaders: Which of its entries to look at.

    Raises:
        FileNotFoundError: A data set's folder or annotation file is not there.
    """
    for name in dataloaders:
        for dataset in _datasets(cfg.get(name)):
            root = dataset.get("data_root") or ""
            annotations = dataset.get("ann_file") or ""
            for path in (root, os.path.join(root, annotations)):
                if path and "://" not in path and not os.path.exists(path):
                    raise FileNotFoundError(
                        f"{path} is not there: {config} expects its {dataset.get('type')} data "
                        f"below {os.path.abspath(root or '.')}. {_remedy(root)}"
                    )


def _remedy(root: str) -> str:
    if "shapes" in Path(root).parts:
        folder = Path(*Path(root).parts[: Path(root).parts.index("shapes") + 1])
        return f"Make it with: python tools/make_shapes.py {folder}"
    return "Put it there or link it; `make demo` needs no data set of yours"


def _datasets(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every innermost data set of a dataloader, through wrappers such as RepeatDataset."""
    if isinstance(node, Mapping):
        if "data_root" in node or "ann_file" in node:
            yield node
        for key in ("dataset", "datasets"):
            yield from _datasets(node.get(key))
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _datasets(item)
