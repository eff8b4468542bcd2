"""The distributions that mmvanilla works with, and one check of what is installed.

Each import name of OpenMMLab has two distributions: the maintained fork (onedl-*) and the original.
They overwrite each other's files, so mmvanilla's own metadata requires neither.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from importlib.util import find_spec
from typing import NamedTuple


class Distribution(NamedTuple):
    """A distribution that provides a toolbox: which releases work, and which one is pinned."""

    name: str
    works: str
    tested: str


# The fork's distribution comes first: it is the one to recommend.
TOOLBOXES: dict[str, tuple[Distribution, ...]] = {
    "mmengine": (
        Distribution("onedl-mmengine", ">=0.10.8,<1", "0.10.12"),
        Distribution("mmengine", ">=0.8.3,<1", "0.10.7"),
    ),
    "mmcv": (
        Distribution("onedl-mmcv", ">=2.3.0,<2.4", "2.3.6"),
        Distribution("mmcv-lite", ">=2.0.0,<2.3", "2.1.0"),
        Distribution("mmcv", ">=2.0.0,<2.3", "2.1.0"),
    ),
    "mmdet": (
        Distribution("onedl-mmdetection", ">=3.4.0,<4", "3.5.1"),
        Distribution("mmdet", ">=3.0.0,<4", "3.3.0"),
    ),
    "mmseg": (
        Distribution("onedl-mmsegmentation", ">=1.3.0,<2", "1.4.2"),
        Distribution("mmsegmentation", ">=1.0.0,<2", "1.2.2"),
    ),
    "mmpretrain": (
        Distribution("onedl-mmpretrain", ">=1.3.0,<2", "1.3.6"),
        Distribution("mmpretrain", ">=1.0.0,<2", "1.2.0"),
    ),
}


def has_toolbox(name: str) -> bool:
    """Tell whether a package is installed, by its import name, without importing it."""
    spec = find_spec(name)
    # A mere folder of that name in the working directory is found too, but has no origin.
    return spec is not None and spec.origin is not None


def require_installed(*toolboxes: str) -> None:
    """Check that toolboxes are there, whatever their versions.

    Raises:
        ImportError: One of them is missing; the message has the command that installs all.
    """
    missing = [name for name in toolboxes if not has_toolbox(name)]
    if missing:
        raise ImportError(f"{' and '.join(missing)} not found; run {_command(*missing)}")


def require(*toolboxes: str) -> None:
    """Check that toolboxes, keys of :data:`TOOLBOXES`, work together and can be imported.

    Raises:
        ImportError: A toolbox is not installed, or cannot be imported.
        RuntimeError: An installed release does not work, or two distributions provide the toolbox.
    """
    from packaging.specifiers import SpecifierSet  # mmengine brings it

    require_installed("mmengine", "mmcv", *toolboxes)
    for name in dict.fromkeys(("mmengine", "mmcv", *toolboxes)):
        found = _installed(name)
        label = " and ".join(f"{entry.name} {version}" for entry, version in found)
        if len(found) > 1:
            raise RuntimeError(
                f"{label} overwrite each other's files; run `pip uninstall -y "
                f"{' '.join(entry.name for entry, _ in found)}`, then {_command(name)}"
            )
        for entry, version in found:
            if not SpecifierSet(entry.works).contains(version, prereleases=True):
                raise RuntimeError(
                    f"{label} does not work here, {entry.works} does; run {_command(name)}"
                )
        try:
            importlib.import_module(name)
        # Toolboxes assert the versions of each other, and torchvision asserts that of torch.
        except (AssertionError, ImportError, OSError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ImportError(
                f"{label or name} cannot be imported: {reason}; docs/setup.md has the versions "
                f"that work together; reinstall with {_command('mmengine', 'mmcv', name)}"
            ) from error


def _installed(name: str) -> list[tuple[Distribution, str]]:
    found = []
    for entry in TOOLBOXES[name]:
        try:
            found.append((entry, metadata.version(entry.name)))
        except metadata.PackageNotFoundError:
            continue
    return found


def _command(*names: str) -> str:
    """Return one command that installs toolboxes of the stack that is there, even if in part."""
    there = [entry for name in TOOLBOXES for entry, _ in _installed(name)]
    is_original = bool(there) and not any(entry.name.startswith("onedl-") for entry in there)
    part = slice(1, None) if is_original else slice(1)
    stacks = (TOOLBOXES[name][part] for name in dict.fromkeys(names))
    chosen = [min(stack, key=lambda entry: entry not in there) for stack in stacks]
    return f"`pip install {' '.join(f'{entry.name}=={entry.tested}' for entry in chosen)}`"
