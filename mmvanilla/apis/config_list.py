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
    """A config that comes with this package.

    Attributes:
        name: What to type for it: its path relative to configs/.
        toolbox: Import name of its toolbox, as ``"mmdet"``.
        task: What its models do, as ``"detection"``.
        about: The first line of its comments.
    """

    name: str
    toolbox: str
    task: str
    about: str


def list_configs(pattern: str = "") -> list[PackagedConfig]:
    """List the configs that come with this package, parts of others left out.

    Args:
        pattern: Part of what is listed, of any column and in any case, or a pattern with ``*`` for
            the name. Default: all are listed.
    """
    pattern = pattern.lower()
    found = []
    for name in sorted(config_names(), key=_natural):
        path = configs_dir() / name
        toolbox = _toolbox(path)
        about = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").removesuffix(".")
        config = PackagedConfig(name, toolbox, _TASKS.get(toolbox, ""), about)
        is_named = fnmatch.fnmatch(name.removesuffix(".py").lower(), pattern.removesuffix(".py"))
        if is_named or any(pattern in column.lower() for column in config):
            found.append(config)
    return found


def _toolbox(path: Path) -> str:
    """Return the toolbox that a config names first, or one of the files that it inherits.

    The configs are not run: that takes seconds, and needs their toolboxes.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    code = "\n".join(line.partition("#")[0] for line in lines)
    named = _TOOLBOX.search(code)
    if named:
        return named.group(1)
    bases = (path.parent / name for name in _FILE.findall(code))
    return next(filter(None, (_toolbox(base) for base in bases if base.is_file())), "")


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts 9 before 10, and what is in no folder first."""
    parts = re.findall(r"\d+|\D+", name if "/" in name else f" {name}")
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]
