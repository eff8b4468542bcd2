"""Turn the config of a model in training form into the config of its deploy form."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.model import PretrainedInit
from mmengine.registry import HOOKS, MODELS, Registry
from mmengine.utils import get_object_from_string

from mmvanilla.engine.deep_training_hook import DeepTrainingHook
from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.strict_loading import StrictLoadingMixin

# The arguments of a ConvPair that a plain convolution does not take.
_OF_PAIRS_ALONE = ("type", "deploy", "mid_channels", "norm_cfg", "last_norm", "init_cfg")


def deploy_config(cfg: Config, plain_networks: bool = False) -> Config:
    """Make the config of the model that fusing the model of ``cfg`` gives.

    VanillaNet, its head, and every ``ConvPair`` get ``deploy=True``, whatever their key is and
    however their type is written (as a name, a name with a scope, or a class). Entries that would
    fetch weights are removed, and so is a ``DeepTrainingHook``, since the deploy form has no λ: the
    config also serves for fine-tuning from the fused weights.

    Args:
        cfg: Config of a model in training form.
        plain_networks: Whether to remove the pairs from the config instead, so that it describes
            the plain network. Its convolutions then have a bias only where the network itself asks
            for one, so the weights of ``fuse_model(model)`` fit only if every other bias moved into
            a norm. Default: False: all convolutions have a bias, as after
            ``fuse_model(model)``.

    Returns:
        A new config; ``cfg`` is not changed.
    """
    cfg = copy.deepcopy(cfg)
    for node in list(_dicts(cfg._cfg_dict)):
        # A text file cannot hold classes, so they are written by their full names.
        for key, value in list(node.items()):
            if isinstance(value, type) and value.__module__ != "builtins":
                node[key] = _full_name(value)
    for node in list(_dicts(cfg.model)):
        for key, child in list(node.items()):
            if plain_networks and is_config_of(child, ConvPair):
                node[key] = _plain_conv(key, child)
        if is_config_of(node, (StrictLoadingMixin, ConvPair)):
            node["deploy"] = True
        if "init_cfg" in node:
            node["init_cfg"] = _without_pretrained(node["init_cfg"])
    for name in ("default_hooks", "custom_hooks"):
        if cfg.get(name):
            cfg[name] = _without_deep_training(cfg[name])
    cfg.load_from = None
    cfg.resume = False
    return cfg


def _full_name(kind: type) -> str:
    """Return a name by which mmengine finds a class again.

    A function that is called as its module hides the module, as MMDetection's ``smooth_l1_loss``
    does; then the class is named by a package above, which has it too.
    """
    module = kind.__module__
    while module:
        name = f"{module}.{kind.__qualname__}"
        try:
            if get_object_from_string(name) is kind:
                return name
        except AttributeError:
            pass
        module = module.rpartition(".")[0]
    return f"{kind.__module__}.{kind.__qualname__}"


def _dicts(node: Any) -> Iterator[ConfigDict]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from _dicts(item)


def is_config_of(node: Any, classes: Any, registry: Registry = MODELS) -> bool:
    """Tell whether a value is the config of one of these classes or of a subclass.

    Args:
        node: Any part of a config. Its ``type`` may be a class, or a name with or without a scope.
        classes: A class, or a tuple of classes.
        registry: Registry in which names are looked up. Default: that of the models.
    """
    kind = node.get("type") if isinstance(node, dict) else None
    if isinstance(kind, str):
        try:
            kind = registry.get(kind)
        except Exception:
            return False  # from another registry, or not installed: building will report it
    return isinstance(kind, type) and issubclass(kind, classes)


def _without_deep_training(hooks: Any) -> Any:
    if isinstance(hooks, dict):
        return {name: hook for name, hook in hooks.items() if not _is_deep_training(hook)}
    return [hook for hook in hooks if not _is_deep_training(hook)]


def _is_deep_training(hook: Any) -> bool:
    return isinstance(hook, DeepTrainingHook) or is_config_of(hook, DeepTrainingHook, HOOKS)


def _plain_conv(key: str, pair_cfg: ConfigDict) -> ConfigDict | None:
    rest = {name: value for name, value in pair_cfg.items() if name not in _OF_PAIRS_ALONE}
    # With None a network uses its own default, which need not be the type Conv2d.
    return None if key == "conv_cfg" and not rest else ConfigDict(type="Conv2d", **rest)


def _without_pretrained(init_cfg: Any) -> Any:
    if isinstance(init_cfg, list | tuple):
        left = [_without_pretrained(item) for item in init_cfg]
        return [item for item in left if item is not None]
    kind = init_cfg.get("type") if isinstance(init_cfg, dict) else None
    is_pretrained = kind in ("Pretrained", "PretrainedInit", PretrainedInit) or str(kind).endswith(
        (".Pretrained", ".PretrainedInit")
    )
    return None if is_pretrained else init_cfg
