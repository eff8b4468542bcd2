"""What is known of the rows of a table: the runs that ended, and the value that was chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import ConfigDict

from mmvanilla.utils.paths import tool_command
from projects.studies.ablation_rows import Row, digest
from projects.studies.train_and_compare import Result
from projects.studies.training_process import Request


@dataclass(frozen=True)
class Choice:
    """How each row gets its own value of one option, such as the learning rate.

    Each value is trained once, with a seed of its own, and validated on other data than those of
    the table. The value with the highest metric is taken, the first of several.

    Attributes:
        key: The option by its dotted key, as ``'optim_wrapper.optimizer.lr'``.
        values: The numbers to choose from.
        options: Options by which a config validates on the data for the choice.

    Raises:
        ValueError: There are fewer than two different numbers, or one is not finite.
    """

    key: str
    values: tuple[float, ...]
    options: dict[str, Any]

    def __post_init__(self) -> None:
        finite = all(math.isfinite(value) for value in self.values)
        if not finite or len(self.values) < 2 or len(set(self.values)) < len(self.values):
            found = ", ".join(f"{value:g}" for value in self.values) or "none"
            raise ValueError(
                f"a choice needs two different numbers or more, found {found}; give them behind "
                f"{self.key}"
            )

    @property
    def option(self) -> str:
        """The last part of the key: ``lr``."""
        return self.key.rpartition(".")[2]

    def require_key(self, row: Row) -> None:
        """Refuse a key that a row's config does not have, such as a misspelt one.

        Raises:
            ValueError: The config has no such entry, or it is not a number.
        """
        node: Any = row.load()
        for part in self.key.split("."):
            if isinstance(node, list | tuple) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            else:
                node = node.get(part) if hasattr(node, "get") else None
        if not isinstance(node, int | float):
            found = "a dict" if isinstance(node, ConfigDict) else repr(node)
            raise ValueError(
                f"{row.name}: {self.key} is {found}, not a number to choose another one for; "
                f"compare the key with what `{tool_command('configs')} --show` prints"
            )


@dataclass(frozen=True)
class Run:
    """One training of a row.

    Attributes:
        row: The row.
        seed: Seed of all random numbers.
        value: Value of the option that is chosen; None if there is no choice.
        choosing: Whether this training is for the choice, and not for the table.
    """

    row: Row
    seed: int
    value: float | None = None
    choosing: bool = False

    @property
    def name(self) -> str:
        """What is trained, for people."""
        if self.choosing:
            return f"{self.row.name}, {self.value:g} on held-out data"
        return f"{self.row.name}, seed {self.seed}"

    def request(self, work_dir: str, choice: Choice | None) -> Request:
        """Say what to train, and in which folder.

        Args:
            work_dir: Folder in which each run gets a folder of its own. Its name has a digest of
                the config, the options and the seed.
            choice: How the row got its value, if it did.
        """
        options = dict(self.row.options)
        if choice is not None:
            options[choice.key] = self.value
            options.update(choice.options if self.choosing else {})
        kind = f"{choice.option}{self.value:g}" if choice and self.choosing else f"seed{self.seed}"
        key = digest(self.row.content, options, self.seed)
        folder = Path(work_dir, f"{self.row.name.replace(' ', '_')}_{kind}_{key}")
        return Request(self.row.config, options, self.seed, str(folder), fuse=not self.choosing)


@dataclass(frozen=True)
class EndedRun:
    """A run with its result."""

    run: Run
    result: Result

    @property
    def metric(self) -> str:
        """The name of the only validation metric.

        Raises:
            ValueError: There are several, or there is none.
        """
        names = list(self.result.trained)
        if len(names) != 1:
            raise ValueError(
                f"{self.run.name}: an ablation compares one metric, found "
                f"{', '.join(names) or 'none'}; leave one in the config's val_evaluator"
            )
        return names[0]

    @property
    def trained(self) -> float:
        """The only metric, of the model as trained."""
        return self.result.trained[self.metric]

    @property
    def fused(self) -> float | None:
        """The only metric, of the fused model; None if it was not fused."""
        return None if self.result.fused is None else self.result.fused[self.metric]

    def __str__(self) -> str:
        parts = _metrics(self.result.trained)
        fused = "" if self.result.fused is None else f", fused {_metrics(self.result.fused)}"
        return f"{self.run.name}: {parts}{fused}"


def _metrics(metrics: dict[str, float]) -> str:
    if len(metrics) == 1:
        (value,) = metrics.values()
        return write_metric(value)
    return " ".join(f"{name} {write_metric(value)}" for name, value in metrics.items())


def write_metric(value: float) -> str:
    """Write a metric: one digit behind the point for a percentage, three for a share of 1."""
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"


@dataclass
class RowState:
    """What is known of a row.

    Attributes:
        row: The row.
        tried: The ended runs of the choice.
        value: The chosen value; None before the choice, or without one.
        runs: The ended runs of the table.
    """

    row: Row
    tried: list[EndedRun] = field(default_factory=list)
    value: float | None = None
    runs: list[EndedRun] = field(default_factory=list)

    def choose(self, choice: Choice) -> str:
        """Take the value with the highest metric, and say in one line what was compared."""
        results = {ended.run.value: ended.trained for ended in self.tried}
        value = self.value = max(choice.values, key=lambda each: _rank(results[each]))
        found = ", ".join(f"{each:g}: {results[each]:.1f}" for each in choice.values)
        ends = {min(choice.values): "smallest", max(choice.values): "largest"}
        edge = ""
        if len(choice.values) > 2 and value in ends:
            edge = f"; it is the {ends[value]} of the grid, and a wider grid may have a better one"
        return f"{self.row.name}: chose {choice.option}={value:g} ({found}){edge}"


def _rank(metric: float) -> float:
    return -math.inf if math.isnan(metric) else metric  # as of a training that diverged
