"""Check the toolboxes of OpenMMLab that are not in the tested stacks, such as MMRotate and MMPose.

VanillaNet works in them as in the three toolboxes of the stacks; docs/family.md says what was run.
They are not installed with the project, since their requirements do not fit all environments.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from mmvanilla.utils.dependencies import Distribution, has_toolbox, require, stack_in_use

# A wheel of xtcocotools is built against numpy 1: compiled here, it fits the numpy that is there.
_POSE_NEEDS = "json-tricks==3.17.3 munkres==3.0.0"
_POSE_FORK = (
    f"pip install --no-deps mmpose==1.3.2 {_POSE_NEEDS} && "
    "pip install --no-deps --no-cache-dir --no-binary xtcocotools xtcocotools==1.14.3"
)
_POSE_ORIGINAL = f"pip install --no-deps mmpose==1.3.2 {_POSE_NEEDS} xtcocotools==1.14.3"
# Its requirements ask for open3d and others, which only drawing point clouds needs.
_DET3D_NEEDS = (
    "numba==0.60.0 llvmlite==0.43.0 trimesh plyfile nuscenes-devkit lyft_dataset_sdk pyquaternion "
    "cachetools fire descartes pandas==2.2.3 pytz"
)


@dataclass(frozen=True)
class Relative:
    """A toolbox beside the stacks.

    Attributes:
        distributions: Distributions that provide it, one at most for each stack.
        commands: The command that installs it, by the name of the stack; a stack in which it does
            not work is left out.
        needs: Import names of the toolboxes of the stack that it imports.
    """

    distributions: tuple[Distribution, ...]
    commands: Mapping[str, str]
    needs: tuple[str, ...] = ("mmdet",)


#: The toolboxes in which VanillaNet was run, by import name.
FAMILY: dict[str, Relative] = {
    "mmrotate": Relative(
        (
            Distribution("onedl-mmrotate", "fork", "1.2.0", "2.0.0", "1.2.1"),
            Distribution("mmrotate-dev", "original", "1.0.1", "2.0.0", "1.0.1"),
        ),
        {
            "fork": "pip install onedl-mmrotate==1.2.1",
            "original": "pip install --no-deps mmrotate-dev==1.0.1",
        },
    ),
    "mmpose": Relative(
        (Distribution("mmpose", "original", "1.3.0", "2.0.0", "1.3.2"),),
        {"fork": _POSE_FORK, "original": _POSE_ORIGINAL},
    ),
    "mmyolo": Relative(
        (
            Distribution("mmyolo-open", "original", "0.6.1", "1.0.0", "0.6.1"),
            Distribution("mmyolo", "original", "0.6.0", "1.0.0", "0.6.0"),
        ),
        {"original": "pip install --no-deps mmyolo-open==0.6.1"},
    ),
    "mmdet3d": Relative(
        (Distribution("mmdet3d", "original", "1.4.0", "2.0.0", "1.4.0"),),
        {"original": f"pip install --no-deps mmdet3d==1.4.0 {_DET3D_NEEDS}"},
    ),
}


def require_relative(name: str) -> None:
    """Check that a toolbox beside the stacks is installed, fits, and can be imported.

    Args:
        name: Import name of the toolbox, a key of :data:`FAMILY`.

    Raises:
        ValueError: The name is not a key of :data:`FAMILY`.
        ImportError: The toolbox, or one that it needs, is not installed.
        RuntimeError: An installed version does not work.
    """
    if name not in FAMILY:
        raise ValueError(f"unknown toolbox {name!r}; choose from {', '.join(FAMILY)}")
    relative = FAMILY[name]
    if not has_toolbox(name):
        raise ImportError(f"{name} is not installed. {_remedy(name)}")
    for distribution in relative.distributions:
        try:
            version = metadata.version(distribution.name)
        except metadata.PackageNotFoundError:
            continue
        if not distribution.covers(version):
            raise RuntimeError(
                f"found {distribution.name} {version}, which was not run with mmvanilla. "
                f"{_remedy(name)}"
            )
    require(*relative.needs)
    try:
        importlib.import_module(name)
    # Toolboxes assert the versions of each other; compiled ones name numpy's in a ValueError.
    except (AssertionError, ImportError, OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RuntimeError(f"{name} cannot be imported: {reason} {_remedy(name)}") from error


def _remedy(name: str) -> str:
    relative = FAMILY[name]
    ranges = " or ".join(distribution.range for distribution in relative.distributions)
    command = relative.commands.get(stack_in_use())
    if command is not None:
        return f"Versions that work: {ranges}. Install it by `{command}`"
    stack, command = next(iter(relative.commands.items()))
    return (
        f"Versions that work: {ranges}, with the {stack} stack alone (see docs/family.md). In an "
        f"environment of that stack install it by `{command}`"
    )
