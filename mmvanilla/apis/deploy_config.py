"""From the config of a model in training form to the config of its deploy form."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.model import PretrainedInit
from mmengine.registry import MODELS

from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.strict_loading import StrictLoadingMixin

# The arguments of a ConvPair that a plain convolution does not have.
_OF_PAIRS_ALONE = ("type", "deploy", "mid_channels", "norm_cfg", "last_norm", "init_cfg")


def deploy_config(cfg: Config, plain_networks: bool = False) -> Config:
    """The config whose model is what fusing ``cfg``'s model gives.

    VanillaNet, its head, and every ``ConvPair`` get ``deploy=True``, under whatever key they stand
    and however they are spelt (a name, a name with a scope, a class). Nothing is fetched when the
    model is built or trained.

    Args:
        cfg: Config of a model in training form.
        plain_networks: Take the pairs out of the config instead, so that the network becomes what
            it is without them. Its convolutions then have the biases that the network itself asks
            for: it takes the weights of ``fuse_model(model)``, and only if every bias found a norm
            to go to. False: they all have one, as after ``fuse_model(model, move_bias=False)``.
    """
    cfg = copy.deepcopy(cfg)
    for node in list(_dicts(cfg._cfg_dict)):
        # Text has no classes: a config that imports them is written with their full names.
        for key, value in list(node.items()):
            if isinstance(value, type) and value.__module__ != "builtins":
                node[key] = f"{value.__module__}.{value.__qualname__}"
    for node in list(_dicts(cfg.model)):
        for key, child in list(node.items()):
            if plain_networks and _is_a(child, ConvPair):
                node[key] = _plain_conv(key, child)
        if _is_a(node, (StrictLoadingMixin, ConvPair)):
            node["deploy"] = True
        if "init_cfg" in node:
            node["init_cfg"] = _without_pretrained(node["init_cfg"])
    cfg.load_from = None
    cfg.resume = False
    return cfg


def _dicts(node: Any) -> Iterator[ConfigDict]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from _dicts(item)


def _is_a(node: Any, classes: Any) -> bool:
    """Whether a dict is the config of one of these classes or of a subclass."""
    kind = node.get("type") if isinstance(node, dict) else None
    if isinstance(kind, str):
        try:
            kind = MODELS.get(kind)
        except Exception:
            return False  # of another registry, or not installed: building will tell
    return isinstance(kind, type) and issubclass(kind, classes)


def _plain_conv(key: str, pair_cfg: ConfigDict) -> ConfigDict | None:
    rest = {name: value for name, value in pair_cfg.items() if name not in _OF_PAIRS_ALONE}
    # Networks take None for their own default, which they may write as they like.
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
