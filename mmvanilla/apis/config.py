"""Reading a config file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

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
