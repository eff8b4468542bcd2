"""Let mmengine read ``mmvanilla::imagenet/vanillanet9_in1k.py``, as it reads ``mmdet::…``.

mmengine knows such prefixes from a fixed table, and builds what it read there in a scope of the
prefix's name; our configs belong to the scopes of three toolboxes. So ``import mmvanilla`` adds the
name to the table, and lets ``_base_ = "mmvanilla::…"`` mean the file, without a scope of its own.
It works in our tools, and wherever mmvanilla is imported before the config is read. It does not

- in the toolboxes' own tools, which read ``_base_`` before they import what a config names. There,
  ``_base_ = __import__("mmvanilla").config_path("maskrcnn_vanillanet.py")`` works;
- in ``mmengine.hub.get_model``, which builds in the scope of the package: see
  :func:`mmvanilla.utils.register_all_modules`.

``mmengine.hub.get_config`` wants a folder in the name. For a config that is in none it takes
``mmvanilla::_base_/../retinanet_vanillanet.py``.
"""

from __future__ import annotations

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from mmvanilla.utils.paths import PREFIX, config_path

_NAME = PREFIX.rstrip(":")


def register_prefix() -> None:
    """Add our prefix to those that mmengine knows; again does nothing."""
    if _NAME in MODULE2PACKAGE or not hasattr(Config, "_get_cfg_path"):
        return
    of_others = Config._get_cfg_path

    def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if isinstance(cfg_path, str) and cfg_path.startswith(PREFIX):
            return config_path(cfg_path), None
        return of_others(cfg_path, filename)

    MODULE2PACKAGE[_NAME] = _NAME
    Config._get_cfg_path = staticmethod(_get_cfg_path)
