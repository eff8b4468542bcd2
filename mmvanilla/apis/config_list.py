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
    """List the packaged configs that have this in a column, or a name like this with ``*``."""
    pattern = pattern.lower()
    found = []
    for name in sorted(config_names(), key=lambda name: ("/" in name, name)):
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
