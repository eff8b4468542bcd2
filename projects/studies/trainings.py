"""The trainings of a table: choose a value for each row, then train it with several seeds."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmvanilla.checkpoints.writing import write_text
from projects.studies.rows import Row, digest
from projects.studies.training import REQUEST, RESULT, Result

_CHOICE_SEED = 1000  # not one of the table, so that its results do not profit from the choice


@dataclass(frozen=True)
class Choice:
    """How each row gets its own value of one option, such as the learning rate.

    Each value is trained once and validated on other data than those of the table. The value with
    the highest metric is taken, the first of several.

    Attributes:
        key: The option by its dotted key, as ``'optim_wrapper.optimizer.lr'``.
        values: The numbers to choose from, at least two.
        options: Options by which a config validates on held-out data.
    """

    key: str
    values: tuple[float, ...]
    options: dict[str, Any]

    @property
    def option(self) -> str:
        """The last part of the key: ``lr``."""
        return self.key.rpartition(".")[2]

    def check(self, row: Row) -> None:
        """Refuse a choice that would look at the results of the table, or at nothing.

        Raises:
            ValueError: It validates on the data of the table, the row's config has no such number,
                or there are fewer than two values.
        """
        table, other = row.load(), row.load(self.options)
        used, chosen = (dict(cfg.val_dataloader.dataset) for cfg in (table, other))
        # MMPretrain's MNIST and FashionMNIST read by test_mode alone, its CIFAR by split.
        reads = "test_mode" if "MNIST" in str(used.get("type")) else "split"
        decisive = {*used, *chosen} - {"indices", "pipeline", "split", "test_mode"} | {reads}
        if all(used.get(key) == chosen.get(key) for key in decisive):
            raise ValueError(
                f"{row.name}: a value would be chosen on the data whose results are reported; hold "
                "training images out by --choose-on, as val_dataloader.dataset.split=train, "
                "val_dataloader.dataset.test_mode=False and val_dataloader.dataset.indices=-10000"
            )
        node: Any = table
        for part in self.key.split("."):
            is_list = isinstance(node, list | tuple)
            node = node[int(part)] if is_list else getattr(node, "get", {}.get)(part)
        if not isinstance(node, int | float) or len(set(self.values)) < 2:
            raise ValueError(
                f"{row.name}: {self.key} is {node!r}, expected a number, and two or more others to "
                f"choose from, found {list(self.values)}"
            )


@dataclass
class RowState:
    """What is known of a row.

    Attributes:
        row: The row.
        value: The chosen value; None before the choice, or without one.
        results: The results of the table by the seed.
    """

    row: Row
    value: float | None = None
    results: dict[int, Result] = field(default_factory=dict)


class Trainings:
    """The trainings of a table, some beside each other, and what they gave.

    Each finished run leaves a ``result.json`` in a folder of ``work_dir`` whose name has a digest
    of config, options and seed. A run whose result is there is not trained again: the same command
    goes on where it was stopped, and a changed config is trained anew. Changes of the code, of a
    teacher, of weights to begin with and of the data are not noticed; take another ``work_dir`` and
    ``store`` after them.

    Args:
        rows: The rows to train.
        seeds: Seeds to train each with, each once.
        work_dir: Folder in which each run gets a folder of its own.
        choice: How each row gets its value of an option; None: the config's.
        jobs: Number of trainings beside each other, each in a process of its own. With 0 nothing is
            trained, and only what is there is read. Default: 1.
        store: Path of a JSON file with the results of all runs, in addition to their folders: what
            it has is not trained again, and each new result is added. None: no such file.

    Attributes:
        states: What is known of each row, in their order.
        failures: The names of the runs that failed.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        seeds: Sequence[int],
        work_dir: str,
        choice: Choice | None = None,
        jobs: int = 1,
        store: str | None = None,
    ) -> None:
        for row in rows if choice is not None else ():
            choice.check(row)
        self.states = [RowState(row) for row in rows]
        self.failures: list[str] = []
        self._seeds, self._choice, self._jobs = tuple(dict.fromkeys(seeds)), choice, jobs
        self._work_dir, self._store = Path(work_dir), Path(store) if store else None
        self._processes: list[subprocess.Popen] = []
        self._is_stopped, self._keeping = False, threading.Lock()
        self._known: dict[str, dict] = {}
        if self._store is not None and self._store.is_file():
            self._known = json.loads(self._store.read_text(encoding="utf-8"))

    @property
    def complete(self) -> list[RowState]:
        """The rows that have a result for each seed."""
        return [state for state in self.states if len(state.results) == len(self._seeds)]

    def run(self) -> None:
        """Train what is not known, and print a line about each result, choice and failure."""
        with ThreadPoolExecutor(max(1, self._jobs)) as pool:
            try:
                if self._choice is not None:
                    list(pool.map(self._choose, self.states))
                chosen = [
                    (state, seed)
                    for state in self.states
                    for seed in self._seeds
                    if self._choice is None or state.value is not None
                ]
                for (state, seed), result in zip(
                    chosen, pool.map(lambda pair: self._table_run(*pair), chosen), strict=True
                ):
                    if result is not None:
                        state.results[seed] = result
            except BaseException:
                self._is_stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                for process in self._processes:
                    process.terminate()
                raise

    def _choose(self, state: RowState) -> None:
        choice = self._choice
        assert choice is not None
        found: dict[float, float] = {}
        for value in choice.values:
            options = {**state.row.options, choice.key: value, **choice.options}
            what = f"{state.row.name}, {choice.option} {value:g} on held-out data"
            name = self._name(state.row, f"{choice.option}{value:g}", options, _CHOICE_SEED)
            result = self._run(what, name, state.row.config, options, _CHOICE_SEED, fuse=False)
            if result is None:
                return
            metric = result.trained.get("mIoU", next(iter(result.trained.values())))
            found[value] = -math.inf if math.isnan(metric) else metric  # NaN: it diverged
        state.value = max(choice.values, key=lambda value: found[value])
        tried = ", ".join(f"{value:g}: {metric:.1f}" for value, metric in found.items())
        print(f"{state.row.name}: chose {choice.option}={state.value:g} ({tried})", flush=True)

    def _table_run(self, state: RowState, seed: int) -> Result | None:
        what = f"{state.row.name}, seed {seed}"
        return self._run(
            what, self.folder(state, seed).name, state.row.config, self._options(state), seed
        )

    def _options(self, state: RowState) -> dict[str, Any]:
        chosen = {} if self._choice is None else {self._choice.key: state.value}
        return {**state.row.options, **chosen}

    def folder(self, state: RowState, seed: int) -> Path:
        """Return the folder of a run of the table, with its log, config and checkpoints."""
        name = self._name(state.row, f"seed{seed}", self._options(state), seed)
        return self._work_dir / name

    def _name(self, row: Row, kind: str, options: dict[str, Any], seed: int) -> str:
        return f"{row.name.replace(' ', '_')}_{kind}_{digest(row.content, options, seed)}"

    def _run(
        self, what: str, name: str, config: str, options: dict, seed: int, fuse: bool = True
    ) -> Result | None:
        """Read a result, or train in a process of its own; None if there is none."""
        folder = self._work_dir / name
        path = folder / RESULT
        is_new = not path.is_file() and name not in self._known
        if is_new and self._jobs and not self._is_stopped:
            folder.mkdir(parents=True, exist_ok=True)
            request = dict(config=config, seed=seed, options=options, fuse=fuse)
            (folder / REQUEST).write_text(json.dumps(request), encoding="utf-8")
            threads = os.environ.get("OMP_NUM_THREADS") or str(
                max(1, (os.cpu_count() or 1) // self._jobs)
            )
            with (folder / "log.txt").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "projects.studies.training", str(folder)],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "OMP_NUM_THREADS": threads},
                )
                self._processes.append(process)
                process.wait()
            if not path.is_file():
                self.failures.append(what)
                print(f"failed: {what}; see {folder / 'log.txt'}", flush=True)
                return None
        if name not in self._known and path.is_file():
            self._keep(name, json.loads(path.read_text(encoding="utf-8")))
        if name not in self._known:
            return None
        result = Result(**self._known[name])
        metrics = ", ".join(f"{key} {value:.4g}" for key, value in result.trained.items())
        print(f"{what}: {metrics}{'' if is_new else ' (from before)'}", flush=True)
        return result

    def _keep(self, name: str, result: dict) -> None:
        with self._keeping:
            self._known[name] = result
            if self._store is not None:
                entries = (
                    f"  {json.dumps(key)}: {json.dumps(self._known[key])}"
                    for key in sorted(self._known)
                )
                text = "{\n" + ",\n".join(entries) + "\n}\n"
                write_text(text, self._store, overwrite=self._store.exists())
