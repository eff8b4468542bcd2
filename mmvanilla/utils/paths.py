"""Find the configs and tools: inside an installed package, or in the clone around it.

Nothing but the standard library is imported here: `mmvanilla --help` reads this file alone.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def _folder(name: str) -> Path:
    clone = _PACKAGE.parent
    # Beside an installed package there may be any folders: only a clone has setup.py there.
    if (clone / "setup.py").is_file() and (clone / name).is_dir():
        return clone / name
    inside = _PACKAGE / ".mim" / name
    if inside.is_dir():
        return inside
    raise RuntimeError(f"the installation is incomplete: there is no {inside}; install again")


def configs_dir() -> Path:
    """Return the folder of the configs that come with this package."""
    return _folder("configs")


def tools_dir() -> Path:
    """Return the folder of the command-line tools that come with this package."""
    return _folder("tools")


def config_names() -> list[str]:
    """Return the paths in :func:`configs_dir` of all configs but parts of others."""
    folder = configs_dir()
    paths = (path.relative_to(folder) for path in folder.rglob("*.py"))
    return sorted(path.as_posix() for path in paths if "_base_" not in path.parts)


def config_path(name: str) -> str:
    """Return the absolute path of a config that comes with this package.

    ``name`` is its path in configs/, as ``"imagenet/vanillanet5_in1k.py"``. The suffix may be left
    out, and the folder if no other config has the same name.

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
    lister = f"`{tool_command('configs')}`"
    raise FileNotFoundError(f"no config at {name}; check the path, or take one that {lister} lists")


def resolve_config(name: str) -> str:
    """Return the path of a file as it is, and of any other name what :func:`config_path` finds."""
    return name if Path(name).is_file() else config_path(name)


def tool_command(name: str) -> str:
    """Return the command that runs a tool of ours, as ``"make_shapes"``, in the current folder."""
    beside = Path("tools", f"{name}.py")
    if beside.is_file() and beside.resolve().parent == tools_dir().resolve():
        return f"python {beside.as_posix()}"
    return f"mmvanilla {name}"
