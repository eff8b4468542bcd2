"""Find the configs and tools: inside an installed package, or in the clone around it.

Nothing but the standard library is imported here: `mmvanilla --help` reads this file alone.
"""

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
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
    paths = (path.relative_to(folder) for path in folder.rglob("*.py"))
    return sorted(path.as_posix() for path in paths if "_base_" not in path.parts)


def config_path(name: str) -> str:
    """Return the absolute path of a config that comes with this package.

    Args:
        name: Path of the config relative to configs/, as ``"imagenet/vanillanet5_in1k.py"``. The
            suffix may be left out, and the folder if no other config has the same name.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: There are several.
    """
    wanted = name.removeprefix("./").removeprefix("configs/").removesuffix(".py") + ".py"
    if (configs_dir() / wanted).is_file():
        return str(configs_dir() / wanted)
    same = [known for known in config_names() if Path(known).name == wanted]
    if len(same) == 1:
        return str(configs_dir() / same[0])
    if same:
        raise ValueError(f"several configs are named {name}; choose from {', '.join(same)}")
    stems = {Path(known).stem: known for known in config_names()}
    near = difflib.get_close_matches(Path(wanted).stem, stems, _NEAREST)
    hint = f"; did you mean {' or '.join(stems[match] for match in near)}?" if near else ""
    raise FileNotFoundError(
        f"no config at {name}; check the path and the working directory, or choose one that "
        f"`{tool_command('configs')}` lists{hint}"
    )


def resolve_config(name: str) -> str:
    """Return the path of the config that a command line names.

    Args:
        name: Path of a file or folder, which comes first; else a name as in :func:`config_path`.

    Raises:
        FileNotFoundError: There is no such file, and no such config comes with this package.
        ValueError: Several configs of this name come with this package.
    """
    return name if Path(name).exists() else config_path(name)


def tool_command(name: str) -> str:
    """Return the command that runs one of our tools from the current folder.

    Args:
        name: Name of a tool, as ``"make_shapes"``.
    """
    beside = Path("tools", f"{name}.py")
    if beside.is_file() and beside.resolve().parent == tools_dir().resolve():
        return f"python {beside.as_posix()}"
    return f"mmvanilla {name}"
