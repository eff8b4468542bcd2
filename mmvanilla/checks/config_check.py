"""Check a whole config: all of it for `mmvanilla check`, the quick part before a training."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import checkpoint
from torch import nn

from mmvanilla.apis.config import load_config, use_scope
from mmvanilla.apis.data_checks import find_data_faults
from mmvanilla.apis.model import build_on_meta
from mmvanilla.checks.classes import check_classes
from mmvanilla.checks.findings import FAULT, Finding, fault, ok
from mmvanilla.checks.model_check import check_model
from mmvanilla.checks.splits import check_splits
from mmvanilla.checks.training import check_lambda, check_layer_decay
from mmvanilla.checks.types import check_imports, check_types, type_name, walk
from mmvanilla.utils.paths import tool_command

_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")


def check_config(cfg: Config, size: tuple[int, int] | None = None) -> list[Finding]:
    """Check a config without data or weights: nothing is fetched, and nothing is written.

    Args:
        cfg: Config of a model of any of the three toolboxes.
        size: Height and width in pixels of the image to run. None: the size that the config trains
            with, and a large one.

    Returns:
        All findings, those that fit too.
    """
    with _quiet(), _without_weights():
        findings = check_imports(cfg) + check_types(cfg)
        model = _built(cfg, findings)
        if model is not None:
            findings += check_model(cfg, model, size)
            findings += check_classes(cfg, model)
            findings += check_layer_decay(cfg, model) + check_lambda(cfg, model)
        findings += check_splits(cfg) + _check_files(cfg)
    return findings


def quick_check(cfg: Config, one_process: bool = True) -> list[Finding]:
    """Check what takes no time and needs no data: model, classes, splits, λ and learning rates.

    Args:
        cfg: Config of a model of any of the three toolboxes.
        one_process: Whether training will run in one process. Default: True.
    """
    with _quiet(), _without_weights():
        use_scope(cfg)
        findings = check_imports(cfg)
        model = _built(cfg, findings)
        if model is not None:
            findings += check_model(cfg, model, thorough=False, one_process=one_process)
            findings += check_classes(cfg, model)
            findings += check_layer_decay(cfg, model) + check_lambda(cfg, model)
        findings += check_splits(cfg)
    return findings


def refuse_certain_faults(
    config: str, cfg_options: Mapping[str, Any] | None = None, launcher: str = "none"
) -> None:
    """Refuse a config with which training cannot work, and log its other faults as warnings.

    Args:
        config: Path of the config file.
        cfg_options: Values by dotted key, which override entries of the config.
        launcher: Launcher of the processes, ``'none'`` for one process.

    Raises:
        ValueError: The model cannot be built, or a part of it cannot work as it is configured.
    """
    cfg = load_config(config, cfg_options)
    findings = quick_check(cfg, one_process=launcher == "none")
    faults = [item for item in findings if item.status == FAULT]
    certain = [str(item) for item in faults if item.certain]
    if certain:
        raise ValueError(
            f"{config} cannot be trained: {'. Also: '.join(certain)}. "
            f"`{tool_command('check')} {config}` shows the rest; --no-check trains all the same"
        )
    if all(os.environ.get(name, "0") == "0" for name in _RANKS):
        for item in faults:
            print_log(f"{config}: {item}", logger="current", level=logging.WARNING)


def _built(cfg: Config, findings: list[Finding]) -> nn.Module | None:
    try:
        return build_on_meta(cfg)
    except ValueError as error:
        text = str(error).removeprefix(f"{cfg.filename}: ")
        what, _, remedy = text.partition("; ")
        findings.append(fault("model", what, remedy, certain=True))
        return None


def _check_files(cfg: Config) -> list[Finding]:
    """Look for the data sets and the weights that the config names."""
    loaders = ("train_dataloader", "val_dataloader", "test_dataloader")
    found: dict[str, list[str]] = {}  # the same folder may be missing in each of them
    for error in find_data_faults(cfg, *loaders):
        text = str(error).removeprefix(f"{cfg.filename or 'the config'}, ")
        loader, _, text = text.partition(": ")
        found.setdefault(text, []).append(loader)
    findings = []
    for text, names in found.items():
        what, _, remedy = _split(text)
        where = ", ".join(dict.fromkeys(names))
        findings.append(fault("data", f"{where}: {what}", remedy or "correct the data or config"))
    if not findings and any(cfg.get(name) for name in loaders):
        findings = [ok("data", "the folders and files that the data sets name are there")]
    addresses = [cfg.get("load_from")] + [
        node.get("checkpoint")
        for node in walk(cfg.get("model"))
        if type_name(node.get("type")) in ("Pretrained", "PretrainedInit")
    ]
    for address in addresses:
        if isinstance(address, str) and "://" not in address and not Path(address).is_file():
            findings.append(
                fault("weights", f"{address} is not there", "correct the path of the weights")
            )
    return findings


def _split(text: str) -> tuple[str, str, str]:
    """Split a message about data into what is wrong and what to do."""
    for separator in (". ", "; "):
        what, found, remedy = text.partition(separator)
        if found and remedy[:1].isalpha():
            return what, found, remedy
    return text, "", ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the toolboxes say while they build and run a model from the screen."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _without_weights() -> Iterator[None]:
    """Let models that load a teacher's weights while they are built go without them."""
    load = checkpoint._load_checkpoint
    checkpoint._load_checkpoint = lambda *args, **kwargs: dict(state_dict={})
    try:
        yield
    finally:
        checkpoint._load_checkpoint = load
