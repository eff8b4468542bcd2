"""The rows of an ablation: a config with the options of each of its switches."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmvanilla.apis.config import load_config
from mmvanilla.utils.paths import config_path

_ENTRY = "ablations"  # of a config that has rows of its own
# The entries on which a result depends: those that the Runner reads, without names and testing.
_INDIFFERENT = {"test_dataloader", "test_cfg", "test_evaluator", "visualizer", "work_dir"}
_INDIFFERENT |= {"log_processor", "log_level", "experiment_name", "launcher", "cfg", "self"}
_DECISIVE = set(inspect.signature(Runner.__init__).parameters) - _INDIFFERENT
_DECISIVE |= {"runner_type", "compile"}


def paper_switches() -> dict[str, dict[str, Any]]:
    """Return the paper's ablations of a VanillaNet by name: the options of each.

    They are the rows of a config that has no entry ``ablations`` with rows of its own.
    """
    return Config.fromfile(config_path("_base_/ablation_rows.py")).ablations.to_dict()


def options_line(options: Mapping[str, Any]) -> str:
    """Write the options of a row for the command line of OpenMMLab's tools."""
    words = [f"{key}={_word(value)}" for key, value in options.items()]
    return " ".join(["--cfg-options", *words]) if words else ""


def _word(value: Any) -> str:
    return str(value).replace(" ", "")


@dataclass(frozen=True)
class Row:
    """One row of the table: a config with the options of a switch.

    Attributes:
        config: Path or name of the config file.
        switch: Name of the switch; empty for the config as it is.
        options: Its options, by dotted key.
        content: A digest of what decides the results in the config; it changes with that.
    """

    config: str
    switch: str
    options: dict[str, Any]
    content: str

    @property
    def name(self) -> str:
        """The name of the config and that of the switch, if there is one, for people."""
        return f"{Path(self.config).stem} {self.switch}".rstrip()

    def load(self, more: Mapping[str, Any] | None = None) -> Config:
        """Read the config with the row's options, and further ones."""
        return load_config(self.config, {**self.options, **(more or {})})


def rows_of(config: str) -> list[Row]:
    """Find the rows of a config.

    Args:
        config: Path or name of a config. Its entry ``ablations`` is a dict of options by the name
            of the row; without it, the rows are :func:`paper_switches`.

    Raises:
        FileNotFoundError: The config does not exist.
        ValueError: The config cannot be read, or its ``ablations`` are not a dict of dicts.
    """
    cfg = load_config(config)
    switches = cfg.to_dict().pop(_ENTRY, None)
    if switches is None:
        switches = paper_switches()
    is_table = isinstance(switches, Mapping) and bool(switches)
    if not is_table or not all(isinstance(each, Mapping) for each in switches.values()):
        raise ValueError(
            f"{config}: {_ENTRY} must be a dict of rows, each a dict of options by dotted key, "
            f"found {switches!r}; write {_ENTRY} = dict(full={{}}, n1={{'model.backbone.act_num': "
            "1})"
        )
    for name, options in switches.items():
        _require_words(config, name, options)
    content = _content(cfg)
    return [Row(config, name, dict(options), content) for name, options in switches.items()]


def whole_configs(configs: Sequence[str]) -> list[Row]:
    """Make a row of each config as it is, without any switch.

    Args:
        configs: Paths or names of the configs.

    Raises:
        FileNotFoundError: A config does not exist.
        ValueError: A config cannot be read, or one is given twice.
    """
    _refuse_twice("configs", [Path(config).stem for config in configs])
    return [Row(config, "", {}, _content(load_config(config))) for config in configs]


def _content(cfg: Config) -> str:
    return digest({key: value for key, value in cfg.to_dict().items() if key in _DECISIVE})


def _require_words(config: str, name: str, options: Mapping[str, Any]) -> None:
    try:
        json.dumps(options)
    except TypeError as error:
        raise ValueError(
            f"{config}, row {name!r} of {_ENTRY}: {error}, so its process could not be told; write "
            "names, numbers, lists and dicts, as a type by its name"
        ) from error


def choose_rows(configs: Sequence[str], switches: Sequence[str] | None = None) -> list[Row]:
    """Find the rows of several configs, config by config.

    Args:
        configs: Paths or names of the configs.
        switches: Names of the rows to take from each config that has them. None: all rows.

    Raises:
        FileNotFoundError: A config does not exist.
        ValueError: No config has a row of one of these names, something is given twice, or the
            options of a row do not fit its config.
    """
    _refuse_twice("configs", [Path(config).stem for config in configs])
    _refuse_twice("switches", list(switches or ()))
    found = [row for config in configs for row in rows_of(config)]
    if switches is not None:
        known = list(dict.fromkeys(row.switch for row in found))
        for switch in switches:
            if switch not in known:
                raise ValueError(f"unknown switch {switch!r}; choose from {', '.join(known)}")
        found = [row for row in found if row.switch in switches]
    for row in found:
        row.load()  # fail now, not after hours of training
    return found


def _refuse_twice(what: str, entries: Sequence[str]) -> None:
    twice = sorted({entry for entry in entries if entries.count(entry) > 1})
    if twice:
        raise ValueError(
            f"{what} {', '.join(twice)} given twice, whose results could not be distinguished; "
            "give each only once"
        )


def digest(*content: Any) -> str:
    """Make a short name for a content, which differs for another one.

    Args:
        content: Dicts, lists, numbers, strings; other values count by their ``repr``.
    """
    text = json.dumps(content, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
