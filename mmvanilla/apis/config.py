"""Read a config file."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from mmvanilla.utils.dependencies import TOOLBOXES, has_toolbox, require
from mmvanilla.utils.paths import resolve_config

_SUFFIXES = (".py", ".json", ".yaml", ".yml")
_READERS = ("_file2dict", "_parse_lazy_import", "_is_lazy_import")  # of mmengine's Config


def load_config(path: str, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config, apply ``--cfg-options``, and check that its toolbox is installed.

    A config is Python code, and reading it runs that code, so read only configs that you trust.

    Args:
        path: Path of the config file, or the name of a config that comes with this package, as in
            :func:`mmvanilla.utils.paths.resolve_config`.
        options: Values by dotted key, which override entries of the file.

    Raises:
        FileNotFoundError: The file, or one that it inherits from, does not exist.
        ImportError: The config's toolbox, or something it needs, is not installed; or a module that
            the options add to ``custom_imports``, which mmengine's tools leave out.
        ValueError: The file cannot be read as a config or has no model, the options do not fit, or
            several configs have this name.
    """
    path = resolve_config(path)
    _check_file(Path(path))
    _refuse_circle((os.path.abspath(path),))
    try:
        cfg = Config.fromfile(path)
    # A config may run any code, such as sys.exit(), so every error is reported as one of the
    # config.
    except (Exception, SystemExit) as error:
        raise _explained(error, path) from error
    if options:
        try:
            cfg.merge_from_dict(dict(options))
        except Exception as error:
            raise ValueError(
                f"--cfg-options {' '.join(options)} do not fit {path} ({_words(error)}); compare "
                "the keys with those of the config"
            ) from error
        if any(key.split(".")[0] == "custom_imports" for key in options):
            _import_modules(cfg)
    if not isinstance(cfg.get("model"), Mapping):
        found = f"its model is {cfg.model!r}, not a dict" if "model" in cfg else "it has no model"
        raise ValueError(
            f"{path} is not the config of a model: {found}; give one that defines "
            "model = dict(type=...), or inherits it by _base_"
        )
    _check_scope(cfg, path)
    return cfg


def use_scope(cfg: Config) -> None:
    """Let names without a toolbox mean those of a config's toolbox, as mmengine's Runner does.

    Args:
        cfg: A config. With ``default_scope=None``, as in pure Python configs, each registry looks
            into itself.
    """
    scope = cfg.get("default_scope", "mmengine")
    if scope is not None:
        init_default_scope(scope)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a config file in it, one of *.py")
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"{path} is not a config: its name must end in {', '.join(_SUFFIXES)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give a config that defines a model")


def _refuse_circle(trail: tuple[str, ...]) -> None:
    """Refuse a file that inherits from itself, which mmengine would read until memory runs out."""
    try:
        names = Config._get_base_files(trail[-1])
        bases = [os.path.abspath(Config._get_cfg_path(name, trail[-1])[0]) for name in names]
    except (Exception, SystemExit):
        return  # reading the file will explain the error better
    for base in bases:
        if base in trail:
            circle = " → ".join([*trail[trail.index(base) :], base])
            raise ValueError(
                f"{trail[0]} inherits from itself by _base_: {circle}; remove one of these "
                "files from its _base_"
            )
        _refuse_circle((*trail, base))


def _import_modules(cfg: Config) -> None:
    """Import what ``--cfg-options`` added to ``custom_imports``; mmengine imports the file's."""
    try:
        import_modules_from_strings(**(cfg.custom_imports or {}))
    except Exception as error:  # importing runs any code
        raise ImportError(
            f"--cfg-options make custom_imports={cfg.custom_imports}, which cannot be imported "
            f"({_words(error)}); write custom_imports.imports=[...] with installed modules"
        ) from error


def _check_scope(cfg: Config, path: str) -> None:
    scope = cfg.get("default_scope") or "mmengine"
    if scope in TOOLBOXES:
        require(scope)
    elif not isinstance(scope, str) or not has_toolbox(scope):
        raise ImportError(
            f"{path} has default_scope={scope!r}, and no such toolbox is installed; install it, or "
            f"set default_scope to one of {', '.join(TOOLBOXES)}"
        )


def _explained(error: BaseException, path: str) -> Exception:
    """Turn an error of reading a config into one that names the file, reason and remedy."""
    chain = _files_being_read(error) or [path]
    where = chain[-1] if len(chain) > 1 else path
    if isinstance(error, metadata.PackageNotFoundError | ModuleNotFoundError):
        for name, distributions in TOOLBOXES.items():
            if error.name == name or any(
                f"{entry.name} is not installed" in str(error) for entry in distributions
            ):
                try:
                    require(name)
                except (ImportError, RuntimeError) as missing:
                    return type(missing)(f"{path} cannot be read: {missing}")
    if len(chain) > 1 and not Path(where).is_file():
        remedy = "correct its _base_"
        if "://" in where.replace(":/", "://"):
            remedy = "_base_ takes files only, so download it beside the config and name that file"
        return FileNotFoundError(
            f"{chain[-2]} inherits by _base_ from {where}, which is not a file; {remedy}"
        )
    if isinstance(error, SystemExit):
        reason = f"it ended the program by sys.exit({error.code!r})"
    elif isinstance(error, SyntaxError):
        reason = f"line {error.lineno}: {error.msg}" if error.lineno else error.msg
    elif isinstance(error, UnicodeDecodeError):
        reason = f"it is not UTF-8 text (byte {error.start})"
    else:
        line = _line_in(where, error)
        reason = f"{f'line {line}: ' if line else ''}{type(error).__name__}: {_words(error)}"
    kind = ImportError if isinstance(error, ImportError) else ValueError
    name = where if where == path else f"{path}, which inherits from {where}"
    return kind(f"cannot read the config {name}: {reason}; correct the file or give another one")


def _words(error: BaseException) -> str:
    # mmengine's message for a failed import ends with the whole of sys.path.
    text = str(error).partition(", the current sys.path is")[0]
    if error.__cause__ is not None:
        text += f" ({_words(error.__cause__)})"
    return " ".join(text.split()) or "no message"


def _files_being_read(error: BaseException) -> list[str]:
    """List the configs that mmengine was reading at the error, the inheriting ones first."""
    files: list[str] = []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = frame.f_locals.get("filename")
        if frame.f_code.co_name in _READERS and isinstance(name, str) and name not in files:
            files.append(name)
    return files


def _line_in(path: str, error: BaseException) -> int | None:
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == str(Path(path).resolve())
    ]
    return lines[-1] if lines else None
