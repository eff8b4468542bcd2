"""The toolboxes' own configs with a tiny VanillaNet in place of their backbone."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path

from mmengine.config import Config

CHANNELS = (8, 16, 32, 64)  # VanillaNet-6 1/64 as wide


def load(toolbox: str, name: str) -> Config:
    folder = Path(importlib.import_module(toolbox).__file__).parent / ".mim" / "configs"
    cfg = Config.fromfile(folder / name)
    cfg.setdefault("default_scope", toolbox)
    return cfg


def swapped(cfg: Config, levels: tuple[int, ...], **backbone: object) -> Config:
    """The config with VanillaNet's levels in place of its backbone, and the neck told of them."""
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone = dict(
        type="VanillaNet", arch="6", width_mult=1 / 64, out_indices=levels, **backbone
    )
    neck = cfg.model.neck[0] if isinstance(cfg.model.neck, list) else cfg.model.neck
    channels = [CHANNELS[level] for level in levels]
    given = neck.get("in_channels")
    if isinstance(given, list | tuple):
        falls = len(given) > 1 and given[0] > given[-1]  # YOLOv3 begins with the coarsest
        neck.in_channels = channels[::-1] if falls else channels
    else:
        neck.in_channels = channels[-1]
    return cfg
