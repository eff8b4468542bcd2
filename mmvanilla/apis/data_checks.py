"""Check the data that a config names, before the model is built."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mmvanilla.apis.annotation_checks import ClassFolders, check_coco, check_segmentation
from mmvanilla.apis.config import use_scope
from mmvanilla.utils.paths import tool_command

_MANY = 8  # names that a message lists


def require_data(cfg: Config, *dataloaders: str) -> None:
    """Refuse a config whose data sets are missing or do not fit it.

    Data sets with an address (such as ``s3://``) are not checked, nor those that download their
    files themselves.

    Args:
        cfg: Config whose data sets are checked; messages name its file.
        dataloaders: Names of the entries to check; those that the config lacks are skipped.

    Raises:
        FileNotFoundError: A folder or annotation file of a data set does not exist.
        ValueError: The classes or files of a data set do not fit the config.
    """
    for fault in find_data_faults(cfg, *dataloaders):
        raise fault


def find_data_faults(cfg: Config, *dataloaders: str) -> Iterator[Exception]:
    """List what is missing from the data sets of a config, or does not fit it.

    Args:
        cfg: Config whose data sets are checked; messages name its file.
        dataloaders: Names of the entries to check; those that the config lacks are skipped.

    Yields:
        For each data set with a fault, the exception that :func:`require_data` raises.
    """
    use_scope(cfg)
    folders = ClassFolders(_num_classes(cfg))
    for name in dataloaders:
        for node in find_datasets(cfg.get(name)):
            try:
                _check(node, folders)
            except (FileNotFoundError, ValueError) as error:
                # Not type(error), since some types, such as UnicodeDecodeError, need more
                # arguments.
                kind = ValueError if isinstance(error, ValueError) else FileNotFoundError
                fault = kind(f"{cfg.filename or 'the config'}, {name}: {error}")
                fault.__cause__ = error
                yield fault


def _check(node: Mapping[str, Any], folders: ClassFolders) -> None:
    if _downloads(node):
        return
    root = node.get("data_root") or ""
    if "://" in root:
        return
    _require(root, root, "data_root")
    for place, path in _places(_joined(node), node):
        _require(path, root, place)
    dataset = _built(node)
    if dataset is None:
        return
    # Check again the paths that only the class itself knows, such as the folder of ImageNet's
    # split.
    for place, path in _places(dataset, node):
        _require(path, root, place)
    if _is_a(dataset, "mmpretrain.datasets", "CustomDataset"):
        folders.check(dataset)
    elif _is_a(dataset, "mmseg.datasets", "BaseSegDataset"):
        check_segmentation(dataset)
    elif _is_a(dataset, "mmdet.datasets", "CocoDataset"):
        check_coco(dataset)


def find_datasets(node: Any) -> Iterator[Mapping[str, Any]]:
    """Find the data sets of a dataloader, inside wrappers such as RepeatDataset.

    Args:
        node: The config of the dataloader; None has no data sets.
    """
    if isinstance(node, Mapping):
        if any(key in node for key in ("data_root", "ann_file", "data_prefix")):
            yield node
        for key in ("dataset", "datasets"):
            yield from find_datasets(node.get(key))
    elif isinstance(node, list | tuple):
        for item in node:
            yield from find_datasets(item)


def _downloads(node: Mapping[str, Any]) -> bool:
    kind = class_of_dataset(node)
    return (
        kind is not None
        and "download" in inspect.signature(kind).parameters
        and bool(node.get("download", True))
    )


def class_of_dataset(node: Mapping[str, Any]) -> type | None:
    """Return the class of a data set's config; None if it is not registered.

    Args:
        node: The config of the data set.
    """
    kind = node.get("type")
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    return kind if isinstance(kind, type) else None


def _joined(node: Mapping[str, Any]) -> Any:
    """Join the paths of a data set as mmengine's BaseDataset does, without building it."""
    prefix = node.get("data_prefix") or {}
    paths = SimpleNamespace(
        data_root=node.get("data_root") or "",
        ann_file=node.get("ann_file") or "",
        data_prefix=dict(img_path=prefix) if isinstance(prefix, str) else dict(prefix),
    )
    BaseDataset._join_prefix(paths)
    return paths


def _built(node: Mapping[str, Any]) -> Any:
    """Build a data set without pipeline and annotations; None if its class needs them."""
    kind = class_of_dataset(node)
    if kind is None or not issubclass(kind, BaseDataset):
        return None
    options = {**node, "type": kind, "pipeline": [], "lazy_init": True}
    try:
        return DATASETS.build(options)
    except Exception as error:
        if "lazy_init" in str(error) or "pipeline" in str(error):
            return None  # a class with arguments of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"its {kind.__name__} cannot be built: {reason}; correct its settings"
        ) from error


def _places(paths: Any, node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """List the files and folders that a data set reads: the setting's name, and the path."""
    if isinstance(paths.ann_file, str) and paths.ann_file:
        yield "ann_file", paths.ann_file
    steps = node.get("pipeline")
    reads_maps = steps is None or any("Annotations" in str(step.get("type")) for step in steps)
    given = node.get("data_prefix") or {}
    for key, path in paths.data_prefix.items():
        if not path or ("seg" in key and not reads_maps):
            continue  # a test set without label maps needs none
        in_dict = isinstance(given, Mapping) and key in given
        yield f"data_prefix['{key}']" if in_dict else "data_prefix", path


def _require(path: str, root: str, place: str) -> None:
    if not path or "://" in path or os.path.exists(path):
        return
    above = Path(path)
    while not above.is_dir() and above != above.parent:
        above = above.parent
    names = sorted(
        entry.name + "/" * entry.is_dir()
        for entry in above.iterdir()
        if not entry.name.startswith(".")
    )
    listed = ", ".join(names[:_MANY]) + (", …" if len(names) > _MANY else "")
    raise FileNotFoundError(
        f"{path} is not there (its {place}); found in {above.resolve()}: {listed or 'nothing'}. "
        f"{_remedy(root or path)}"
    )


def _remedy(root: str) -> str:
    parts = Path(root).parts
    for name in ("shapes", "garments"):
        if name in parts:
            folder = Path(*parts[: parts.index(name) + 1])
            return f"Make it with: {tool_command(f'make_{name}')} {folder}"
    return (
        "Put the data there, link it, or correct the path in the config (`--cfg-options`); "
        f"`{tool_command('demo')}` runs without any data set"
    )


def _is_a(dataset: Any, module: str, name: str) -> bool:
    """Tell whether a data set is of a class of a toolbox, without importing the toolbox."""
    return any(
        kind.__name__ == name and kind.__module__.startswith(module)
        for kind in type(dataset).__mro__
    )


def _num_classes(cfg: Config) -> int | None:
    head = (cfg.get("model") or {}).get("head")
    return head.get("num_classes") if isinstance(head, Mapping) else None
