"""Reading a config, and turning it into the config of the fused model."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from mmvanilla.models.strict_loading import StrictLoadingMixin
from mmvanilla.utils.dependencies import require


def load_config(path: str, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config, apply ``--cfg-options``, and check that its toolbox is installed.

    Args:
        path: A config file.
        options: Dotted keys and their values, merged over the file.

    Raises:
        FileNotFoundError: No such file.
        ImportError: The config's toolbox, or something it needs, is not installed.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no config at {path}")
    cfg = Config.fromfile(path)
    if options:
        cfg.merge_from_dict(options)
    scope = cfg.get("default_scope", "mmengine")
    if scope != "mmengine":
        require(scope)
    return cfg


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
