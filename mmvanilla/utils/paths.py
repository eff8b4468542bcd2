"""Find the configs and tools: inside an installed package, or in the clone around it.

Nothing but the standard library is imported here: `mmvanilla --help` reads this file alone.
"""

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
#: Before the name of a config that comes with this package, as OpenMMLab writes ``mmdet::``.
PREFIX = "mmvanilla::"
_NEAREST = 3


def _folder(name: str) -> Path:
    clone = _PACKAGE.parent
    # Beside an installed package there may be folders of any origin: only a clone has setup.py
    # there.
    if (clone / "setup.py").is_file() and (clone / name).is_dir():
        return clone / name
    inside = _PACKAGE / ".mim" / name
    if inside.is_dir():
        return inside
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


def config_names() -> list[str]:
    """Return the names of the configs that come with this package, parts of others left out.

    A name is a path relative to :func:`configs_dir`, as ``"imagenet/vanillanet5_in1k.py"``.
    """
    folder = configs_dir()
    return sorted(
        name.as_posix()
        for name in (path.relative_to(folder) for path in folder.rglob("*.py"))
        if "_base_" not in name.parts
    )


def config_path(name: str) -> str:
    """Return the absolute path of a config that comes with this package.

    Args:
        name: Path of the config relative to configs/, as ``"imagenet/vanillanet5_in1k.py"``. The
            suffix may be left out, and the folder if no other config has the same name.

    Raises:
        ValueError: There is no such config, or there are several.
    """
    found = _packaged(name)
    if not found:
        raise ValueError(
            f"no config named {name!r} in {configs_dir()}; "
            f"choose from {', '.join(_nearest(name) or config_names())}"
        )
    return str(configs_dir() / found)


def resolve_config(name: str) -> str:
    """Return the path of the config that a command line names.

    Args:
        name: Path of a file, which comes first; else a name as in :func:`config_path`, also as
            ``"configs/imagenet/vanillanet5_in1k.py"`` and ``"mmvanilla::imagenet/…"``.

    Raises:
        FileNotFoundError: There is no such file, and no such config comes with this package.
        ValueError: Several configs of this name come with this package.
    """
    if Path(name).is_file():
        return name
    found = _packaged(
        name.removeprefix("./").removeprefix("configs/"), by_file_name="/" not in name
    )
    if found:
        return str(configs_dir() / found)
    if Path(name).is_dir():
        return name  # the reader of configs says what is wrong with that
    nearest = _nearest(name)
    hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
    raise FileNotFoundError(
        f"no config at {name}; check the path and the working directory, or choose one that "
        f"`{tool_command('configs')}` lists{hint}"
    )


def _packaged(name: str, by_file_name: bool = True) -> str | None:
    """Return the path, relative to configs/, of the config that a name means; None if none."""
    wanted = name.removeprefix(PREFIX)
    if not wanted.endswith(".py"):
        wanted += ".py"
    if (configs_dir() / wanted).is_file():
        return wanted
    same = [other for other in config_names() if Path(other).name == wanted]
    if not by_file_name or not same:
        return None
    if len(same) > 1:
        raise ValueError(f"several configs are named {name}; choose from {', '.join(same)}")
    return same[0]


def _nearest(name: str) -> list[str]:
    """Return the configs of the same file name, or else of the most similar names."""
    known = config_names()
    stem = Path(name.removeprefix(PREFIX)).name.removesuffix(".py")
    same = [other for other in known if Path(other).stem == stem]
    if same:
        return same
    stems = {Path(other).name.removesuffix(".py"): other for other in known}
    return [stems[match] for match in difflib.get_close_matches(stem, stems, _NEAREST)]


def tool_command(name: str) -> str:
    """Return the command that runs one of our tools from the current folder.

    Args:
        name: Name of a tool, as ``"make_shapes"``; that of a shell script with its suffix, as
            ``"dist_train.sh"``.
    """
    is_shell = name.endswith(".sh")
    beside = Path("tools", name if is_shell else f"{name}.py")
    if beside.is_file() and beside.resolve().parent == tools_dir().resolve():
        return beside.as_posix() if is_shell else f"python {beside.as_posix()}"
    return f"mmvanilla {name}"
