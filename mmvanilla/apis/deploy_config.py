"""Turn the config of a model in training form into the config of its deploy form."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import HOOKS, MODELS, Registry
from mmengine.utils import get_object_from_string

from mmvanilla.engine.deep_training_hook import DeepTrainingHook
from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.strict_loading import StrictLoadingMixin


def deploy_config(cfg: Config) -> Config:
    """Make the config of the model that fusing the model of ``cfg`` gives.

    VanillaNet, its head, and every ``ConvPair`` get ``deploy=True``, whatever their key is and
    however their type is written. Entries that would fetch weights are removed, and so is a
    ``DeepTrainingHook``: the config also serves for fine-tuning from the fused weights. ``cfg`` is
    not changed.
    """
    cfg = copy.deepcopy(cfg)
    for node in list(_dicts(cfg._cfg_dict)):
        # A text file cannot hold classes, so they are written by their full names.
        for key, value in list(node.items()):
            if isinstance(value, type) and value.__module__ != "builtins":
                node[key] = _full_name(value)
    for node in list(_dicts(cfg.model)):
        if _is_config_of(node, (StrictLoadingMixin, ConvPair), MODELS):
            node["deploy"] = True
        if "init_cfg" in node:
            node["init_cfg"] = _without_pretrained(node["init_cfg"])
    cfg.model.pop("pretrained", None)
    if cfg.get("default_hooks"):
        hooks = cfg.default_hooks.items()
        cfg.default_hooks = {name: hook for name, hook in hooks if not _is_deep_training(hook)}
    if cfg.get("custom_hooks"):
        cfg.custom_hooks = [hook for hook in cfg.custom_hooks if not _is_deep_training(hook)]
    cfg.load_from = None
    cfg.resume = False
    return cfg


def _full_name(kind: type) -> str:
    """Return a name by which mmengine finds a class again.

    Where a function hides the class's module, as MMDetection's ``smooth_l1_loss`` does, a package
    above has the class, too.
    """
    module = kind.__module__
    while module:
        name = f"{module}.{kind.__qualname__}"
        with suppress(AttributeError):
            if get_object_from_string(name) is kind:
                return name
        module = module.rpartition(".")[0]
    return f"{kind.__module__}.{kind.__qualname__}"


def _dicts(node: Any) -> Iterator[ConfigDict]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from _dicts(item)


def _is_deep_training(hook: Any) -> bool:
    return isinstance(hook, DeepTrainingHook) or _is_config_of(hook, DeepTrainingHook, HOOKS)


def _is_config_of(node: Any, classes: Any, registry: Registry) -> bool:
    kind = node.get("type") if isinstance(node, dict) else None
    if isinstance(kind, str):
        try:
            kind = registry.get(kind)
        except Exception:
            return False  # from another registry, or not installed: building will report it
    return isinstance(kind, type) and issubclass(kind, classes)


def _without_pretrained(init_cfg: Any) -> Any:
    if isinstance(init_cfg, list | tuple):
        left = [_without_pretrained(item) for item in init_cfg]
        return [item for item in left if item is not None]
    kind = init_cfg.get("type") if isinstance(init_cfg, dict) else None
    name = str(getattr(kind, "__name__", kind)).rpartition(".")[2]
    return None if name in ("Pretrained", "PretrainedInit") else init_cfg
