"""From the config of a model in training form to the config of its deploy form."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from mmvanilla.models.strict_loading import StrictLoadingMixin


def deploy_config(cfg: Config) -> Config:
    """The config whose model is what fusing ``cfg``'s model gives.

    VanillaNet and its head get ``deploy=True``, networks whose convolutions were pairs by
    ``conv_cfg`` become their plain selves, and nothing is fetched when it is built.
    """
    cfg = copy.deepcopy(cfg)
    for node in _dicts(cfg.model):
        if (node.get("conv_cfg") or {}).get("type") == "ConvPair":
            node.conv_cfg = None
        module_class = MODELS.get(node["type"]) if isinstance(node.get("type"), str) else None
        if isinstance(module_class, type) and issubclass(module_class, StrictLoadingMixin):
            node.deploy = True
        if (node.get("init_cfg") or {}).get("type") == "Pretrained":
            node.init_cfg = None
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
