"""Check the settings of a training: types, the optimiser, the schedule of λ, and weights."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import registry
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmvanilla.checkpoints.reading import read_checkpoint
from mmvanilla.checks.findings import FAULT, OK, WARNING, Finding, words
from mmvanilla.engine.deep_training_hook import DeepTrainingHook
from mmvanilla.models.act_lambda import FadingReLU
from mmvanilla.models.vanillanet import VanillaNet

_OPTIONS_OF_AMP = ("loss_scale", "dtype", "use_fsdp", "cache_enabled")


def check_types(cfg: Config) -> Iterator[Finding]:
    """Check that ``custom_imports`` names the package: tools of a toolbox import what it names."""
    registries = (x for x in vars(registry).values() if isinstance(x, registry.Registry))
    kinds = (item for each in registries for item in each.module_dict.items())
    ours = [name for name, kind in kinds if kind.__module__.startswith("mmvanilla")]
    names = rf"'((?:(?!mmvanilla)\w+\.)?(?:{'|'.join(ours)})|vanillanet://.*?)'"  # or classes
    used = re.findall(names, str(cfg.to_dict()))
    named = (cfg.get("custom_imports") or {}).get("imports") or []
    named = [named] if isinstance(named, str) else list(named)
    if used and not any(name.split(".")[0] == "mmvanilla" for name in named):
        text = f"the config uses {', '.join(dict.fromkeys(used))} and does not import mmvanilla"
        remedy = f"add custom_imports = dict(imports={[*named, 'mmvanilla']}) for other tools"
        yield Finding(FAULT, "custom_imports", text, remedy)


def check_topk(cfg: Config) -> Iterator[Finding]:
    """Find accuracies of more classes than there are: they fail in the first validation."""
    count = (cfg.model.get("head") or {}).get("num_classes", math.inf)
    for place in ("val_evaluator", "test_evaluator"):
        nodes = cfg.get(place) or []
        for node in [nodes] if isinstance(nodes, Mapping) else nodes:
            if np.max(node.get("topk") or 1) > count:
                text = f"topk={node['topk']} asks for more than the {count} classes"
                yield Finding(FAULT, place, text, "set topk=(1,)", place == "val_evaluator")


def check_optimiser(cfg: Config, model: nn.Module) -> Iterator[Finding]:
    """Build the optimiser with its constructor, which asks the backbone for the depth of layers."""
    wrapper = cfg.get("optim_wrapper")
    if not isinstance(wrapper, Mapping):
        return
    plain: dict[str, Any] = dict(copy.deepcopy(wrapper))
    if _bare(plain.get("type")) in ("AmpOptimWrapper", "BFloat16OptimWrapper"):
        # The first one refuses CPUs, and only the constructor is of interest.
        plain = {key: value for key, value in plain.items() if key not in _OPTIONS_OF_AMP}
        plain["type"] = "OptimWrapper"
    try:
        built = build_optim_wrapper(model, plain)
    except Exception as error:  # whatever a constructor of any origin raises
        remedy = "correct its entries"
        if isinstance(error, NotImplementedError) or "constructor registry" in str(error):
            remedy = (
                "constructor='LayerDecayOptimWrapperConstructor' knows the layers of VanillaNet"
            )
        text = f"optim_wrapper cannot be built: {words(error)}"
        yield Finding(FAULT, "optimiser", text, remedy, certain=True)
        return
    if (optimizer := getattr(built, "optimizer", None)) is None:
        return  # a constructor of several
    name = type(optimizer).__name__
    is_ours = any(isinstance(module, VanillaNet) for module in model.modules())
    if name == "SGD" and is_ours and not _trained_weights(cfg):
        text = "a VanillaNet that trains from scratch with SGD does not learn"
        yield Finding(WARNING, "optimiser", text, "take AdamW or LAMB, or name trained weights")
    yield Finding(OK, "optimiser", f"{name}, {len(optimizer.param_groups)} groups")


def check_lambda(cfg: Config, model: nn.Module) -> Finding | None:
    """Check that λ fits the training: from scratch it rises to 1, from trained weights it is 1."""
    fading = any(isinstance(module, FadingReLU) for module in model.modules())
    nodes = [*(cfg.get("custom_hooks") or ()), *(cfg.get("default_hooks") or {}).values()]
    hooks = [node for node in nodes if node and _bare(node.get("type")) == "DeepTrainingHook"]
    source, train_cfg = _trained_weights(cfg), cfg.get("train_cfg") or {}
    in_iterations = "max_iters" in train_cfg or "IterBased" in _bare(train_cfg.get("type"))
    if not hooks and fading and train_cfg and source is None:
        text = "the model trains from scratch without DeepTrainingHook: its pairs are linear"
        decay = "decay_iters" if in_iterations else "decay_epochs"
        remedy = f"add custom_hooks=[dict(type='DeepTrainingHook', {decay}=...)], a third of "
        return Finding(WARNING, "λ", text, remedy + "the training, or name trained weights")
    if not hooks:
        return Finding(OK, "λ", "λ = 1 throughout") if fading else None

    fault = partial(Finding, FAULT, "λ", certain=True)
    if len(hooks) > 1:
        return fault(f"there are {len(hooks)} DeepTrainingHooks, which disagree", "leave one")
    if not fading:
        remedy = "remove the hook, or set deploy=False, or conv_cfg=dict(type='ConvPair')"
        return fault("DeepTrainingHook is there, but no part of the model has a λ", remedy)
    try:
        hook = DeepTrainingHook(**{key: hooks[0][key] for key in hooks[0] if key != "type"})
    except (TypeError, ValueError) as error:
        return fault(words(error), "correct the hook")
    unit = "epochs" if hook.decay_iters is None else "iters"
    end = hook.begin + (hook.decay_epochs or hook.decay_iters or 0)
    length = train_cfg.get(f"max_{unit}")
    if end and unit == "epochs" and in_iterations:
        text = f"decay_epochs={hook.decay_epochs}, but this training counts iterations"
        return fault(text, "give decay_iters")
    if isinstance(length, int) and end >= length > 0:
        text = f"λ is 1 after {end} of {length} {unit}, so it never is"
        remedy = f"set begin + decay_{unit} below max_{unit}, about a third of it"
        return fault(text, remedy, certain=False)
    if source is not None and end and not cfg.get("resume"):
        text = f"DeepTrainingHook begins at λ = 0, but {source} was trained at λ = 1"
        remedy = "remove the hook, unless these weights are from the middle of deep training"
        return Finding(WARNING, "λ", text, remedy)
    then = ", then the pairs are merged" if hook.merge else ""
    return Finding(OK, "λ", f"rises to 1 within {end} of {length or '?'} {unit}{then}")


def check_weights(cfg: Config, model: nn.Module) -> Iterator[Finding]:
    """Look for the files of weights that a config names, and for the prefix in them."""
    named: list[Any] = [("load_from", {"checkpoint": cfg.get("load_from")}, None)]
    for name, module in model.named_modules():
        init_cfg = getattr(module, "init_cfg", None)
        for node in init_cfg if isinstance(init_cfg, list) else [init_cfg]:
            if isinstance(node, Mapping):
                named.append((f"model.{name}.init_cfg", dict(node), module))
    for place, node, module in named:
        source, prefix = node.get("checkpoint"), node.get("prefix")
        path = re.sub(r"^vanillanet://([/.~][^?]*).*", r"\1", str(source or "https://"))
        if "://" in path and not path.startswith("file://"):
            continue
        if not Path(path).expanduser().is_file():
            remedy = "correct the path; write it without file://"
            yield Finding(FAULT, "weights", f"{place}: {path} is not there", remedy)
        elif prefix is not None or isinstance(module, VanillaNet):
            try:
                content = read_checkpoint(source)
            except ValueError as error:
                yield Finding(FAULT, "weights", f"{place}: {error}", certain=True)
                continue
            keys = list(content.get("state_dict", content))
            starts = ["stem.", "module.stem."] if prefix is None else [prefix.rstrip(".") + "."]
            if not any(key.startswith(tuple(starts)) for key in keys):
                parts = sorted({key.split(".")[0] for key in keys})
                text = f"{place}: no key of {path} begins with {starts[0]!r}, but with {parts[:8]}"
                yield Finding(FAULT, "weights", text, "set or correct prefix", certain=True)


def _bare(value: Any) -> str:
    """Return the name of a type without the toolbox: of ``'mmdet.RTMDet'``, or of a class."""
    return getattr(value, "__name__", str(value)).rpartition(".")[2]


def _trained_weights(cfg: Config) -> str | None:
    """Return what a training starts from; None from scratch."""
    if cfg.get("load_from") or cfg.get("resume"):
        return str(cfg.get("load_from") or "the resumed checkpoint")
    is_named = cfg.model.get("pretrained") or "Pretrained" in str(cfg.model)
    return "init_cfg" if is_named else None
