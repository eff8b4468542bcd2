"""Check that every type of a config is registered, also for tools that do not import mmvanilla."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    RUNNERS,
    TRANSFORMS,
    VISUALIZERS,
    Registry,
)

from mmvanilla.apis.config import use_scope
from mmvanilla.apis.data_checks import find_datasets
from mmvanilla.checks.findings import Finding, fault, ok, warning
from mmvanilla.utils.known_errors import (
    OUR_MODULES,
    custom_imports_line,
    explain_unknown_type,
)

IMPORTS, TYPES = "custom_imports", "types"
_KEYS = ("type", "constructor", "runner_type")
_ADDRESS = "vanillanet://"
# Where a module can be imported by a second name, the name of OUR_MODULES.
_SAME_MODULE = {"mmvanilla.models.cls_head": "mmvanilla.cls_head"}
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def check_imports(cfg: Config) -> list[Finding]:
    """Check that ``custom_imports`` names the modules of mmvanilla that the config uses.

    Our own tools import mmvanilla itself; those of a toolbox, and its inferencers, import what the
    config names.

    Args:
        cfg: The config.
    """
    used = dict.fromkeys(_our_names(cfg))
    if not used:
        return []
    named = _named_imports(cfg)
    modules = [OUR_MODULES.get(name, "mmvanilla") for name in used]
    needed = list(dict.fromkeys(["mmvanilla", *modules]))
    # Any module of the package imports the package.
    imported = {name.split(".")[0] for name in named} | {_SAME_MODULE.get(n, n) for n in named}
    missing = [module for module in needed if module not in imported]
    names = ", ".join(used)
    if not missing:
        return [ok(IMPORTS, f"{', '.join(needed)} named, for {names}")]
    text = f"the config uses {names}, but custom_imports does not name {' and '.join(missing)}"
    remedy = f"add {custom_imports_line([*named, *missing])}"
    if named:  # one of them may import mmvanilla
        return [warning(IMPORTS, f"{text}: the toolbox's own tools may not find it", remedy)]
    return [fault(IMPORTS, f"{text}: the toolbox's own tools and inferencers fail", remedy)]


def check_types(cfg: Config) -> list[Finding]:
    """Check that everything beside the model is registered: data sets, hooks, optimiser, metrics.

    Args:
        cfg: The config.
    """
    use_scope(cfg)
    findings = []
    count = 0
    for place, name, registry in _entries(cfg):
        with registry.switch_scope_and_registry(None) as scoped:
            count += 1
            if scoped.get(name) is not None:
                continue
            known = {key for kind in (scoped, registry) for key in kind.module_dict}
        what, remedy = explain_unknown_type(name, known)
        findings.append(fault(TYPES, f"{place}: {what}", remedy))
    return findings or [ok(TYPES, f"{count} data sets, transforms, hooks, … are registered")]


def type_name(value: Any) -> str:
    """Return the name of a type without the toolbox: of ``'mmdet.RTMDet'``, or of a class."""
    return getattr(value, "__name__", str(value)).rpartition(".")[2]


def walk(node: Any) -> Iterator[Mapping[str, Any]]:
    """List all dicts inside a config."""
    if isinstance(node, Mapping):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from walk(item)


def _our_names(cfg: Config) -> Iterator[str]:
    for node in walk(dict(cfg.items())):
        for key in _KEYS:
            if isinstance(node.get(key), str) and type_name(node[key]) in OUR_MODULES:
                yield type_name(node[key])
        for value in node.values():
            if isinstance(value, str) and value.startswith(_ADDRESS):
                yield value


def _named_imports(cfg: Config) -> list[str]:
    named = (cfg.get("custom_imports") or {}).get("imports") or []
    return [named] if isinstance(named, str) else list(named)


def _entries(cfg: Config) -> Iterator[tuple[str, str, Registry]]:
    """List the entries of a config that mmengine looks up: place, name, registry."""
    for loader in _LOADERS:
        node = cfg.get(loader) or {}
        yield from _named(f"{loader}.sampler", node.get("sampler"), DATA_SAMPLERS)
        for dataset in find_datasets(node):
            yield from _named(f"{loader}.dataset", dataset, DATASETS)
            yield from _named(f"{loader}.dataset.pipeline", dataset.get("pipeline"), TRANSFORMS)
    for name in ("train_cfg", "val_cfg", "test_cfg"):
        yield from _named(name, cfg.get(name), LOOPS)
    for name in ("val_evaluator", "test_evaluator"):
        yield from _named(name, cfg.get(name), METRICS)
    yield from _named("custom_hooks", cfg.get("custom_hooks"), HOOKS)
    hooks = cfg.get("default_hooks") or {}
    yield from _named("default_hooks", list(hooks.values()), HOOKS)
    yield from _named("param_scheduler", cfg.get("param_scheduler"), PARAM_SCHEDULERS)
    wrapper = cfg.get("optim_wrapper") or {}
    yield from _named("optim_wrapper", wrapper, OPTIM_WRAPPERS)
    yield from _named("optim_wrapper.optimizer", wrapper.get("optimizer"), OPTIMIZERS)
    constructor = dict(type=wrapper.get("constructor"))
    yield from _named("optim_wrapper.constructor", constructor, OPTIM_WRAPPER_CONSTRUCTORS)
    yield from _named("runner_type", dict(type=cfg.get("runner_type")), RUNNERS)
    yield from _named("visualizer", cfg.get("visualizer"), VISUALIZERS)


def _named(place: str, nodes: Any, registry: Registry) -> Iterator[tuple[str, str, Registry]]:
    for node in nodes if isinstance(nodes, list | tuple) else [nodes]:
        if isinstance(node, Mapping) and isinstance(node.get("type"), str):
            yield place, node["type"], registry
