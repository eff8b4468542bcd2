"""The rows of a study: a config with the options of each of its switches."""

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

_ENTRY = "ablations"  # of a config that has rows of its own
# The entries on which a result depends: those that the Runner reads, without names and testing.
_INDIFFERENT = {"test_dataloader", "test_cfg", "test_evaluator", "visualizer", "work_dir"}
_INDIFFERENT |= {"log_processor", "log_level", "experiment_name", "launcher", "cfg", "self"}
_DECISIVE = set(inspect.signature(Runner.__init__).parameters) - _INDIFFERENT
_DECISIVE |= {"runner_type", "compile"}


@dataclass(frozen=True)
class Row:
    """One row of the table.

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

    @property
    def line(self) -> str:
        """The row as options on the command line of any training tool."""
        words = [f"{key}={value}".replace(" ", "") for key, value in self.options.items()]
        return " ".join(["--cfg-options", *words]) if words else ""

    def load(self, more: Mapping[str, Any] | None = None) -> Config:
        """Read the config with the row's options, and further ones."""
        return load_config(self.config, {**self.options, **(more or {})})


def choose_rows(configs: Sequence[str], switches: Sequence[str] | None = None) -> list[Row]:
    """Find the rows of several configs, config by config.

    A config's entry ``ablations`` is a dict of options by the name of the row. A config without it
    is a row as it is.

    Args:
        configs: Paths or names of the configs.
        switches: Names of the rows to take from each config that has them. None: all rows.

    Raises:
        ValueError: No config has a row of one of these names, a name is given twice, or the options
            of a row do not fit its config.
    """
    rows: list[Row] = []
    for config in configs:
        cfg = load_config(config)
        entries = {key: value for key, value in cfg.to_dict().items() if key in _DECISIVE}
        table = cfg.get(_ENTRY, {"": {}})
        rows += [Row(config, switch, dict(table[switch]), digest(entries)) for switch in table]
    if switches is not None:
        known = list(dict.fromkeys(row.switch for row in rows))
        unknown = sorted(set(switches) - set(known))
        if unknown:
            raise ValueError(f"unknown rows {', '.join(unknown)}; choose from {', '.join(known)}")
        rows = [row for row in rows if row.switch in switches]
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        raise ValueError(f"two of the rows have one name: {', '.join(names)}; give each once")
    for row in rows:
        row.load()  # fail now, not after hours of training
    return rows


def digest(*content: Any) -> str:
    """Make a short name for dicts, lists, numbers and strings, which differs for other ones."""
    text = json.dumps(content, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
