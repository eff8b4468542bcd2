"""Find the configs and tools: inside an installed package, or in the clone around it.

A config of another project inherits one of ours by

    _base_ = __import__("mmvanilla").config_path("maskrcnn_vanillanet.py")

mmengine's `_base_ = 'package::folder/file.py'` does not work: it accepts a fixed list of packages.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def _folder(name: str) -> Path:
    inside = _PACKAGE / ".mim" / name
    if inside.is_dir():
        return inside
    clone = _PACKAGE.parent
    # Beside an installed package there may be folders of any origin: only a clone has setup.py
    # there.
    if (clone / "setup.py").is_file() and (clone / name).is_dir():
        return clone / name
    raise RuntimeError(
        f"found no folder {name} of mmvanilla, neither {inside} nor in {clone}: "
        "the installation is incomplete; run `pip install --force-reinstall --no-deps` on the "
        "project's folder again"
    )


def configs_dir() -> Path:
    """Return the folder of the configs that come with this package."""
    return _folder("configs")


def tools_dir() -> Path:
    """Return the folder of the command-line tools that come with this package."""
    return _folder("tools")


def config_path(name: str) -> str:
    """Return the absolute path of a config that comes with this package.

    Args:
        name: Path of the config relative to configs/, as ``"imagenet/vanillanet5_in1k.py"``.

    Raises:
        ValueError: There is no such config.
    """
    folder = configs_dir()
    path = folder / name
    if not path.is_file():
        known = sorted(
            file.relative_to(folder).as_posix()
            for file in folder.rglob("*.py")
            if "_base_" not in file.relative_to(folder).parts
        )
        same = [other for other in known if Path(other).name == Path(name).name]
        raise ValueError(
            f"no config named {name!r} in {folder}; choose from {', '.join(same or known)}"
        )
    return str(path)


def tool_command(name: str) -> str:
    """Return the command that runs one of our tools from the current folder.

    Args:
        name: Name of a Python tool without its suffix, as ``"make_shapes"``.
    """
    beside = Path("tools", f"{name}.py")
    if beside.is_file() and beside.resolve().parent == tools_dir().resolve():
        return f"python {beside.as_posix()}"
    return f"python -m mmvanilla {name}"
