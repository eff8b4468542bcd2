"""List the configs that come with this package, with what each of them is."""

from __future__ import annotations

import ast
import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path

from mmvanilla.utils.paths import config_names, configs_dir

_TASKS = {
    "mmdet": "detection",
    "mmseg": "segmentation",
    "mmpretrain": "classification",
    "mmrotate": "rotated detection",
    "mmpose": "pose estimation",
    "mmyolo": "detection",
    "mmdet3d": "detection in 3D",
}
_SCOPE = re.compile(r"""^default_scope = ["'](\w+)["']""", flags=re.MULTILINE)
_TOOLBOX = re.compile(rf"\b({'|'.join(_TASKS)})\b")
_PURE_PYTHON = re.compile(r"from mmvanilla\.configs\.(\w+) import")
_FILE = re.compile(r"""["']([\w./-]+\.py)["']""")


@dataclass(frozen=True)
class PackagedConfig:
    """A config that comes with this package.

    Attributes:
        name: What to type for it: its path relative to configs/.
        toolbox: Import name of its toolbox, as ``"mmdet"``.
        task: What its models do, as ``"detection"``.
        about: The first line of its comments or docstring.
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
    configs = [_describe(name) for name in sorted(config_names(), key=_natural)]
    return [config for config in configs if _fits(config, pattern.lower())]


def _fits(config: PackagedConfig, pattern: str) -> bool:
    if any(sign in pattern for sign in "*?["):
        name = config.name.lower()
        return any(fnmatch.fnmatch(name, wanted) for wanted in (pattern, f"{pattern}.py"))
    return any(
        pattern in text.lower() for text in (config.name, config.toolbox, config.task, config.about)
    )


def _describe(name: str) -> PackagedConfig:
    path = configs_dir() / name
    toolbox = _toolbox(path)
    return PackagedConfig(name, toolbox, _TASKS.get(toolbox, ""), _first_line(path))


def _toolbox(path: Path) -> str:
    """Return the toolbox of a config: its scope, or what it or the files behind it name first.

    The configs are not run: that takes seconds, and needs their toolboxes.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    code = "\n".join(line.partition("#")[0] for line in lines)
    named = _SCOPE.search(code) or _TOOLBOX.search(code)
    if named:
        return named.group(1)
    bases = [path.parent / name for name in _FILE.findall(code)]
    ours = Path(__file__).parents[1] / "configs"
    bases += [ours / f"{name}.py" for name in _PURE_PYTHON.findall(code)]
    named_there = (_toolbox(base) for base in bases if base.is_file() and base != path)
    return next(filter(None, named_there), "")


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts 9 before 10, and what is in no folder first."""
    folder, _, file = name.rpartition("/")
    parts = re.findall(r"\d+|\D+", file.removesuffix(".py"))
    numbered = [(int(part), "") if part.isdigit() else (0, part) for part in parts]
    return [(0 if folder else -1, folder), *numbered]


def _first_line(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if text.startswith("#"):
        line = text.partition("\n")[0].lstrip("# ")
    else:
        line = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return line.removesuffix(".")
