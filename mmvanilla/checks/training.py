"""Check the settings of a training: types, the optimiser, the schedule of λ, and weights."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine import registry
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmvanilla.checkpoints.reading import read_checkpoint
from mmvanilla.checks.findings import FAULT, OK, WARNING, Finding, words
from mmvanilla.engine.deep_training_hook import DeepTrainingHook
from mmvanilla.models.act_lambda import FadingReLU
from mmvanilla.models.vanillanet import VanillaNet

_REGISTRIES = dict(
    custom_hooks=registry.HOOKS,
    default_hooks=registry.HOOKS,
    train_cfg=registry.LOOPS,
    param_scheduler=registry.PARAM_SCHEDULERS,
    optim_wrapper=registry.OPTIM_WRAPPERS,
    visualizer=registry.VISUALIZERS,
)
_OTHERS = (registry.MODELS, registry.OPTIM_WRAPPER_CONSTRUCTORS, registry.RUNNERS)
_OPTIONS_OF_AMP = ("loss_scale", "dtype", "use_fsdp", "cache_enabled")


def check_types(cfg: Config) -> Iterator[Finding]:
    """Check that types are registered, and that ``custom_imports`` names the package for ours.

    Our own tools import mmvanilla themselves; those of a toolbox import what the config names.
    """
    for place, known in _REGISTRIES.items():
        for name in (node["type"] for node in _nodes(cfg.get(place))):
            with known.switch_scope_and_registry(None) as scoped:
                if isinstance(name, str) and scoped.get(name) is None:
                    near = difflib.get_close_matches(
                        name, {**scoped.module_dict, **known.module_dict}
                    )
                    remedy = f"did you mean {near[0]!r}?" if near else "name its module in imports"
                    yield Finding(FAULT, "types", f"{place}: unknown type {name!r}", remedy)
    used = dict.fromkeys(_ours(dict(cfg.items())))
    named = (cfg.get("custom_imports") or {}).get("imports") or []
    named = [named] if isinstance(named, str) else list(named)
    if used and not any(name.split(".")[0] == "mmvanilla" for name in named):
        text = f"the config uses {', '.join(used)} and does not import mmvanilla: other tools fail"
        remedy = f"add custom_imports = dict(imports={[*named, 'mmvanilla']})"
        yield Finding(FAULT, "custom_imports", text, remedy)
    for name in used:
        if name.count(".") == 1 and "://" not in name and registry.MODELS.get(name) is None:
            remedy = f"write type={_bare(name)!r}, which every toolbox finds"
            text = f"type={name!r}: this toolbox is not installed"
            yield Finding(FAULT, "types", text, remedy, certain=True)


def check_optimiser(cfg: Config, model: nn.Module) -> Iterator[Finding]:
    """Build the optimiser with its constructor, which asks the backbone for the depth of layers."""
    wrapper = cfg.get("optim_wrapper")
    if not isinstance(wrapper, Mapping):
        return
    # AmpOptimWrapper refuses CPUs, and only the constructor is of interest.
    plain = {key: value for key, value in wrapper.items() if key not in _OPTIONS_OF_AMP}
    try:
        built = build_optim_wrapper(model, copy.deepcopy({**plain, "type": "OptimWrapper"}))
    except Exception as error:  # whatever a constructor of any origin raises
        remedy = "constructor='LayerDecayOptimWrapperConstructor' knows the layers of VanillaNet"
        text = f"optim_wrapper cannot be built: {words(error)}"
        yield Finding(FAULT, "optimiser", text, remedy, certain=True)
        return
    name = type(built.optimizer).__name__
    is_ours = any(isinstance(module, VanillaNet) for module in model.modules())
    if name == "SGD" and is_ours and not _trained_weights(cfg):
        text = "a VanillaNet that trains from scratch with SGD does not learn"
        remedy = "take AdamW or LAMB, or name trained weights"
        yield Finding(WARNING, "optimiser", text, remedy)
    yield Finding(OK, "optimiser", f"{name}, {len(built.optimizer.param_groups)} groups")


def check_lambda(cfg: Config, model: nn.Module) -> Finding | None:
    """Check that λ fits the training: from scratch it rises to 1, from trained weights it is 1."""
    fading = any(isinstance(module, FadingReLU) for module in model.modules())
    nodes = [*_nodes(cfg.get("custom_hooks")), *_nodes(cfg.get("default_hooks"))]
    hooks = [node for node in nodes if _bare(node["type"]) == "DeepTrainingHook"]
    source, train_cfg = _trained_weights(cfg), cfg.get("train_cfg") or {}
    if not hooks and fading and train_cfg and source is None:
        text = "the model trains from scratch without DeepTrainingHook: its pairs are linear"
        remedy = "add custom_hooks=[dict(type='DeepTrainingHook', decay_epochs=...)], a third of "
        return Finding(WARNING, "λ", text, remedy + "the training, or name trained weights")
    if not hooks:
        return Finding(OK, "λ", "λ = 1 throughout") if fading else None
    if len(hooks) > 1:
        text = f"there are {len(hooks)} DeepTrainingHooks, and the last one decides"
        return Finding(FAULT, "λ", text, "leave one", certain=True)
    if not fading:
        remedy = "remove the hook, or set deploy=False, or conv_cfg=dict(type='ConvPair')"
        text = "DeepTrainingHook is there, but no part of the model has a λ"
        return Finding(FAULT, "λ", text, remedy, certain=True)
    try:
        hook = DeepTrainingHook(**{key: hooks[0][key] for key in hooks[0] if key != "type"})
    except (TypeError, ValueError) as error:
        return Finding(FAULT, "λ", words(error), "correct the hook", certain=True)
    in_iterations = "max_iters" in train_cfg or "IterBased" in _bare(train_cfg.get("type"))
    rises = bool(hook.begin or hook.decay_epochs or hook.decay_iters)
    if hook.decay_iters is None and rises and in_iterations:
        text = f"decay_epochs={hook.decay_epochs}, but this training counts iterations"
        return Finding(FAULT, "λ", text, "give decay_iters", certain=True)
    unit = "epochs" if hook.decay_iters is None else "iters"
    end = hook.begin + (hook.decay_epochs or hook.decay_iters or 0)
    length = train_cfg.get(f"max_{unit}")
    if isinstance(length, int) and end >= length > 0 and rises:
        text = f"λ is 1 after {end} of {length} {unit}, so it never is"
        remedy = f"set begin + decay_{unit} below max_{unit}, about a third of it"
        return Finding(FAULT, "λ", text, remedy)
    if source is not None and rises:
        text = f"DeepTrainingHook begins at λ = 0, but {source} was trained at λ = 1"
        remedy = "remove the hook, unless these weights are from the middle of deep training"
        return Finding(WARNING, "λ", text, remedy)
    return Finding(OK, "λ", f"rises to 1 within {end} of {length or '?'} {unit}")


def check_weights(cfg: Config, model: nn.Module) -> Iterator[Finding]:
    """Look for the files of weights that a config names, and for the prefix in them."""
    named = [("load_from", cfg.get("load_from"), None)]
    for name, module in model.named_modules():
        init_cfg = getattr(module, "init_cfg", None)
        for node in init_cfg if isinstance(init_cfg, list) else [init_cfg]:
            if isinstance(node, Mapping) and "checkpoint" in node:
                named.append((f"model.{name}.init_cfg", node["checkpoint"], node.get("prefix")))
    for place, path, prefix in named:
        if not isinstance(path, str) or "://" in path:
            continue
        if not Path(path).is_file():
            yield Finding(FAULT, "weights", f"{place}: {path} is not there", "correct the path")
        elif prefix is not None:
            content = read_checkpoint(path)
            keys = list(content.get("state_dict", content))
            if not any(key.startswith(prefix) for key in keys):
                parts = sorted({key.split(".")[0] for key in keys})
                text = f"{place}: no key of {path} begins with {prefix!r}, but with {parts[:8]}"
                yield Finding(FAULT, "weights", text, "correct prefix", certain=True)


def _nodes(node: Any) -> list[Mapping[str, Any]]:
    """List the dicts with a type: the node itself, or those in a list or a dict."""
    if isinstance(node, Mapping) and "type" not in node:
        node = list(node.values())
    nodes = node if isinstance(node, list | tuple) else [node]
    return [item for item in nodes if isinstance(item, Mapping) and "type" in item]


def _ours(node: Any) -> Iterator[str]:
    """List the types of mmvanilla that a config names, and its addresses of weights."""
    node = list(node.values()) if isinstance(node, Mapping) else node
    if isinstance(node, list | tuple):
        for item in node:
            yield from _ours(item)
    elif isinstance(node, str):
        known = [each.module_dict.get(_bare(node)) for each in (*_REGISTRIES.values(), *_OTHERS)]
        is_ours = any(getattr(kind, "__module__", "").startswith("mmvanilla") for kind in known)
        if is_ours or node.startswith("vanillanet://"):
            yield node


def _bare(value: Any) -> str:
    """Return the name of a type without the toolbox: of ``'mmdet.RTMDet'``, or of a class."""
    return getattr(value, "__name__", str(value)).rpartition(".")[2]


def _trained_weights(cfg: Config) -> str | None:
    """Return what a training starts from; None from scratch."""
    if cfg.get("load_from") or cfg.get("resume"):
        return str(cfg.get("load_from") or "the resumed checkpoint")
    return "init_cfg" if "'Pretrained" in str(cfg.get("model")) else None
