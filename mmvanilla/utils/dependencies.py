"""Check what is installed, and tell the two OpenMMLab stacks apart.

Each import name is provided by two distributions: the maintained fork (onedl-*) and the original.
Code that depends on which of them is installed asks this module.
"""

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec


@dataclass(frozen=True)
class Distribution:
    """A distribution on the package index that provides a toolbox.

    Attributes:
        name: Name of the distribution on the package index.
        stack: Stack that it belongs to, ``"fork"`` or ``"original"``.
        low: First release that works, as ``"0.10.8"``.
        high: First release above it that does not work.
        tested: Release that requirements/ pins.
    """

    name: str
    stack: str
    low: str
    high: str
    tested: str

    @property
    def range(self) -> str:
        """The range of releases that work, for messages."""
        return f"{self.name} >={self.low}, <{self.high} (tested: {self.tested})"

    def covers(self, version: str) -> bool:
        """Tell whether a release is in the range; its pre-releases are, too."""
        return _fits(version, f">={self.low}.dev0,<{self.high}")


TOOLBOXES = {
    "mmengine": (
        Distribution("onedl-mmengine", "fork", "0.10.8", "1.0.0", "0.10.12"),
        Distribution("mmengine", "original", "0.8.3", "1.0.0", "0.10.7"),
    ),
    "mmcv": (
        Distribution("onedl-mmcv", "fork", "2.3.0", "2.4.0", "2.3.6"),
        Distribution("mmcv", "original", "2.0.0", "2.3.0", "2.1.0"),
        Distribution("mmcv-lite", "original", "2.0.0", "2.3.0", "2.1.0"),
    ),
    "mmdet": (
        Distribution("onedl-mmdetection", "fork", "3.4.0", "4.0.0", "3.5.1"),
        Distribution("mmdet", "original", "3.0.0", "4.0.0", "3.3.0"),
    ),
    "mmseg": (
        Distribution("onedl-mmsegmentation", "fork", "1.3.0", "2.0.0", "1.4.2"),
        Distribution("mmsegmentation", "original", "1.0.0", "2.0.0", "1.2.2"),
    ),
    "mmpretrain": (
        Distribution("onedl-mmpretrain", "fork", "1.3.0", "2.0.0", "1.3.6"),
        Distribution("mmpretrain", "original", "1.0.0", "2.0.0", "1.2.0"),
    ),
}
# The original mmdet and mmseg assert at import that mmcv is older than this.
_MMCV_LIMIT = {"mmdet": "2.2.0", "mmsegmentation": "2.2.0"}
# From this version of torch on, torch.load refuses the checkpoints of the original mmengine.
_TORCH_LIMIT = "2.6"
_TRUE = ("1", "y", "yes", "true")


def has_toolbox(name: str) -> bool:
    """Tell whether a toolbox is installed, without importing it.

    Args:
        name: Import name of the toolbox, as ``"mmdet"``.
    """
    spec = find_spec(name)
    # A mere folder of that name in the working directory is found too, but has no origin.
    return spec is not None and spec.origin is not None


def require(*toolboxes: str) -> None:
    """Check that toolboxes are installed in versions that work together.

    For mmengine and mmcv only the metadata is read, which is fast; mmdet, mmseg and mmpretrain are
    imported as well, because only an import shows whether their own requirements are installed.

    Args:
        *toolboxes: Import names of toolboxes, as ``"mmdet"``.

    Raises:
        ValueError: A name is not one of ``TOOLBOXES``.
        ImportError: A toolbox is not installed.
        RuntimeError: An installed version does not work.
    """
    for name in toolboxes:
        if name not in TOOLBOXES:
            raise ValueError(f"unknown toolbox {name!r}; choose from {', '.join(TOOLBOXES)}")
        distribution, version = _check_installed(name)
        if name == "mmengine":
            _check_mmengine(distribution, version)
        elif name != "mmcv":
            require("mmengine", "mmcv")
            _check_toolbox(name, distribution, version)


def _fits(version: str, specifier: str) -> bool:
    """Tell whether a version is in a range; False if it cannot be read as a version."""
    # Imported here, since mmengine installs it: without mmengine the message about that comes
    # first.
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion

    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _installed(name: str) -> Iterator[tuple[Distribution, str]]:
    for distribution in TOOLBOXES[name]:
        version = _version_of(distribution.name)
        if version is not None:
            yield distribution, version


def stack_in_use() -> str:
    """Return the stack to recommend: the one that is already installed, even if in part."""
    for name in TOOLBOXES:
        for distribution, _ in _installed(name):
            return distribution.stack
    return "fork"


def _command(name: str) -> str:
    """Return the command that installs a toolbox of the stack in use."""
    stack = stack_in_use()
    chosen = next(entry for entry in TOOLBOXES[name] if entry.stack == stack)
    pinned = f"{chosen.name}=={chosen.tested}"
    if name != "mmcv":
        return f"pip install {pinned}"
    # An isolated build does not see torch and leaves the ops out; a cached wheel may have been
    # built for another version of torch.
    setuptools = "'setuptools<82'" if stack == "fork" else "'setuptools<81'"
    return (
        f"pip install {setuptools} wheel ninja packaging psutil && "
        f"MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir {pinned}"
    )


def _working(name: str) -> str:
    return " or ".join(distribution.range for distribution in TOOLBOXES[name])


def _check_installed(name: str) -> tuple[Distribution | None, str]:
    """Return the distribution and its version; the former is None for a bare source tree."""
    if not has_toolbox(name):
        extra = ""
        if name == "mmcv":
            extra = (
                "; if you do not use mmdet, mmcv-lite is enough, and needs no compiler: "
                "`pip install 'mmcv-lite>=2.1,<2.3'`"
            )
        raise ImportError(
            f"{name} is not installed. Versions that work: {_working(name)}. "
            f"Install it by `{_command(name)}`{extra}"
        )
    found = list(_installed(name))
    if len(found) > 1:
        both = " and ".join(f"{distribution.name} {version}" for distribution, version in found)
        names = " ".join(distribution.name for distribution, _ in found)
        raise RuntimeError(
            f"{name} is installed more than once, as {both}, which overwrite each other's files. "
            f"Run `pip uninstall -y {names}`, then `{_command(name)}`"
        )
    if found:
        distribution, version = found[0]
        fits = distribution.covers(version)
        label = f"{distribution.name} {version}"
    else:
        distribution = None
        version = str(getattr(importlib.import_module(name), "__version__", "unknown"))
        fits = any(entry.covers(version) for entry in TOOLBOXES[name])
        label = f"{name} {version}"
    if not fits:
        raise RuntimeError(
            f"found {label}, which does not work here. Versions that work: {_working(name)}. "
            f"Install one by `{_command(name)}`"
        )
    return distribution, version


def _check_mmengine(distribution: Distribution | None, version: str) -> None:
    if distribution is None or distribution.stack != "original":
        return
    torch_version = _version_of("torch")
    # This variable of torch restores its former behaviour; a user who sets it has decided.
    trusting = os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "").lower() in _TRUE
    if torch_version and _fits(torch_version, f">={_TORCH_LIMIT}.dev0") and not trusting:
        fork = TOOLBOXES["mmengine"][0]
        raise RuntimeError(
            f"found mmengine {version} with torch {torch_version}: it cannot read its own "
            f"checkpoints there (Weights only load failed). Works: {fork.range}, or torch "
            f"<{_TORCH_LIMIT} (tested: 2.1.2). Run `pip uninstall -y mmengine && pip install "
            f"{fork.name}=={fork.tested}`, or set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 if you trust "
            "every checkpoint that you load"
        )
    if not _importable("pkg_resources"):
        raise RuntimeError(
            f"mmengine {version} needs pkg_resources, which setuptools {_version_of('setuptools')} "
            "does not have. Versions that work: setuptools <81. "
            "Install one by `pip install 'setuptools<81'`"
        )


def _importable(module: str) -> bool:
    return find_spec(module) is not None


def _ops_error() -> str:
    """Return why mmcv's compiled ops do not load; an empty string if they do."""
    try:
        importlib.import_module("mmcv._ext")
    except (ImportError, OSError) as error:
        return str(error).splitlines()[0]
    return ""


def _check_toolbox(name: str, distribution: Distribution | None, version: str) -> None:
    label = f"{distribution.name if distribution else name} {version}"
    mmcv_label, mmcv_version = next(
        ((f"{entry.name} {found}", found) for entry, found in _installed("mmcv")), ("mmcv", "")
    )
    limit = _MMCV_LIMIT.get(distribution.name) if distribution else None
    if limit and mmcv_version and _fits(mmcv_version, f">={limit}.dev0"):
        raise RuntimeError(
            f"found {mmcv_label} with {label}, which refuses it. Versions that work: mmcv or "
            f"mmcv-lite >=2.0.0, <{limit} (tested: 2.1.0). Install one by "
            f"`pip uninstall -y {mmcv_label.split()[0]}`, then `{_command('mmcv')}`"
        )
    if name == "mmdet":
        reason = _ops_error()
        if reason:
            raise RuntimeError(
                f"found {mmcv_label} without compiled ops that fit this torch ({reason}), and "
                f"mmdet needs them. Versions that work: {_working('mmcv')}, but not mmcv-lite. Run "
                f"`pip uninstall -y {mmcv_label.split()[0]}`, then `{_command('mmcv')}`"
            )
    if name == "mmseg":
        missing = [module for module in ("ftfy", "regex") if not _importable(module)]
        if missing:
            raise ImportError(
                f"{label} needs {' and '.join(missing)}, found none. Any version works. "
                f"Install by `pip install {' '.join(missing)}`"
            )
    try:
        if name == "mmpretrain":
            importlib.import_module("torchvision")
        importlib.import_module(name)
    # Toolboxes assert the versions of each other, and torchvision asserts that of torch.
    except (AssertionError, ImportError, OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RuntimeError(
            f"{label} cannot be imported beside {mmcv_label}, torch {_version_of('torch')} and "
            f"torchvision {_version_of('torchvision')}: {reason}. Tested together: onedl-* of the "
            "versions above with torch 2.10.0 and torchvision 0.25.0, the original with torch "
            f"2.1.2 and torchvision 0.16.2. Versions that work: {_working(name)}; reinstall by "
            f"`{_command(name)}`"
        ) from error
