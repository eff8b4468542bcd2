"""List the configs that come with this package, with what each of them is."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import NamedTuple

from mmvanilla.utils.paths import config_names, configs_dir

_TASKS = {"mmdet": "detection", "mmseg": "segmentation", "mmpretrain": "classification"}
_TOOLBOX = re.compile(rf"\b({'|'.join(_TASKS)})\b")
_FILE = re.compile(r"""["']([\w./-]+\.py)["']""")


class PackagedConfig(NamedTuple):
    """A config: its path in configs/, its toolbox and task, and the first line of its comments."""

    name: str
    toolbox: str
    task: str
    about: str


def list_configs(pattern: str = "") -> list[PackagedConfig]:
    """List the configs that come with this package, parts of others left out.

    Args:
        pattern: Part of any column, in any case, or a pattern with ``*`` for the name.
    """
    pattern = pattern.lower()
    found = []
    for name in sorted(config_names(), key=_order):
        path = configs_dir() / name
        toolbox = _toolbox(path)
        about = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").removesuffix(".")
        config = PackagedConfig(name, toolbox, _TASKS.get(toolbox, ""), about)
        is_named = fnmatch.fnmatch(name.removesuffix(".py").lower(), pattern.removesuffix(".py"))
        if is_named or any(pattern in column.lower() for column in config):
            found.append(config)
    return found


def _toolbox(path: Path) -> str:
    """Return the toolbox that a config, or what it inherits, names first, without running it."""
    code = re.sub("#.*", "", path.read_text(encoding="utf-8"))
    named = _TOOLBOX.search(code)
    if named:
        return named.group(1)
    bases = (path.parent / name for name in _FILE.findall(code))
    return next(filter(None, (_toolbox(base) for base in bases if base.is_file())), "")


def _order(name: str) -> tuple[bool, str]:
    """Return a key that sorts 9 before 10, and what is in no folder first."""
    return "/" in name, re.sub(r"\d+", lambda number: f"{number[0]:0>4}", name)
