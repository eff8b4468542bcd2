"""Read a config file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from mmvanilla.utils.dependencies import TOOLBOXES, has_toolbox, require
from mmvanilla.utils.paths import resolve_config


def load_config(path: str, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config, apply ``--cfg-options``, and check that its toolbox is installed.

    A config is Python code, and reading it runs that code, so read only configs that you trust.

    Args:
        path: Path of the file, or the name of a config that comes with this package.
        options: Values by dotted key, which override entries of the file. Modules that they add to
            ``custom_imports`` are imported, too, which mmengine's own tools leave out.

    Raises:
        FileNotFoundError: There is no such file, and no such config comes with this package.
        ImportError: The config's toolbox, or a module that it needs, is not installed.
        ValueError: The file cannot be read as a config or has no model, or the options do not fit.
    """
    path = resolve_config(path)
    if has_toolbox("torchvision"):
        import mmvanilla.ops  # noqa: F401  for MMCV without compiled operators
    cfg = _read(path, Config.fromfile, path)
    if options:
        what = f"{path} with --cfg-options {' '.join(options)}"
        _read(what, cfg.merge_from_dict, dict(options))
        if any(key.split(".")[0] == "custom_imports" for key in options):
            _read(what, lambda imports: import_modules_from_strings(**imports), cfg.custom_imports)
    if not isinstance(cfg.get("model"), Mapping):
        raise ValueError(f"{path} is not the config of a model: it defines no model = dict(...)")
    scope = cfg.get("default_scope") or "mmengine"
    if scope in TOOLBOXES:
        require(scope)
    elif not isinstance(scope, str) or not has_toolbox(scope):
        raise ImportError(f"{path} has default_scope={scope!r}, and no such toolbox is installed")
    return cfg


def use_scope(cfg: Config) -> None:
    """Let names without a toolbox mean those of a config's toolbox, as mmengine's Runner does."""
    scope = cfg.get("default_scope", "mmengine")
    if scope is not None:  # as in pure Python configs
        init_default_scope(scope)


def toolbox_of(cfg: Config) -> str | None:
    """Return the toolbox of a config: its scope, or in pure Python that of the model's class."""
    kind = cfg.get("model", {}).get("type")  # a class, or its name, with its module or without
    module, dot, _ = str(getattr(kind, "__module__", kind)).partition(".")
    return cfg.get("default_scope") or (module if dot else None)


def tested_dataset(cfg: Config) -> Any:
    """Return the config of the (first) data set that is tested on; {} without one."""
    return next(leaves((cfg.get("test_dataloader") or {}).get("dataset") or {}))


def leaves(dataset: Any) -> Iterator[Any]:
    """List the data sets inside of wrappers such as ConcatDataset: built ones, or configs."""
    entries = dataset if isinstance(dataset, Mapping) else vars(dataset)
    for part in entries.get("datasets") or [entries.get("dataset")]:
        yield from [dataset] if part is None else leaves(part)


def _read(name: str, read: Any, argument: Any) -> Any:
    try:
        return read(argument)
    # A config may run any code, sys.exit() included, so every error is reported as one of its own.
    except (Exception, SystemExit) as error:
        kind = ImportError if isinstance(error, ImportError) else ValueError
        raise kind(f"{name} cannot be read: {_words(error)}") from error


def _words(error: BaseException) -> str:
    # mmengine's message about a failed import ends with the whole of sys.path.
    text = " ".join(str(error).partition(", the current sys.path is")[0].split())
    if error.__cause__ is not None:
        text += f" ({_words(error.__cause__)})"
    return f"{type(error).__name__}: {text}"
