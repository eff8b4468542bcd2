"""The toolboxes' own configs with a tiny VanillaNet in place of their backbone."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from mmvanilla.apis.model import build_on_meta
from mmvanilla.checks.forward import run_parts

LARGE = (1024, 1280)
STRIDES = (4, 8, 16, 32)
CHANNELS = (8, 16, 32, 64)  # VanillaNet-6 1/64 as wide


def configs_of(toolbox: str) -> Path:
    return Path(importlib.import_module(toolbox).__file__).parent / ".mim" / "configs"


def families(toolbox: str) -> Iterator[str]:
    """The folders of a toolbox's configs: one for each family."""
    for folder in sorted(configs_of(toolbox).iterdir()):
        if folder.is_dir() and folder.name != "_base_" and any(folder.glob("*.py")):
            yield folder.name


def load(toolbox: str, name: str) -> Config:
    cfg = Config.fromfile(configs_of(toolbox) / name)
    cfg.setdefault("default_scope", toolbox)
    return cfg


def natural_levels(cfg: Config) -> tuple[int, ...] | None:
    """The levels of VanillaNet with the strides that the config's own backbone gives its neck."""
    run = run_parts(build_on_meta(cfg).eval(), LARGE)
    maps = run.shapes.get("neck") or run.shapes.get("neck.0")
    if maps is None:
        return None
    strides = [LARGE[0] / shape[2] for shape in maps]
    if not set(strides) <= set(STRIDES) or len(set(strides)) != len(strides):
        return None
    return tuple(STRIDES.index(int(stride)) for stride in strides)


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
