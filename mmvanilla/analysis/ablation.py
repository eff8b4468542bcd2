"""Ablations: choose a value for each row of a table, then train the row with several seeds."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path

from mmvanilla.analysis.ablation_rows import Row
from mmvanilla.analysis.ablation_run import Process, Result, RunFailed
from mmvanilla.analysis.ablation_state import Choice, EndedRun, RowState, Run
from mmvanilla.analysis.held_out import require_held_out
from mmvanilla.checkpoints.writing import write_text

_RESULT = "result.json"


class Ablation:
    """The trainings of a table, some beside each other, and what they gave.

    Each finished run leaves a ``result.json`` of one line in its folder in ``work_dir``, whose name
    has a digest of the config, the options and the seed. A run whose result is there is not trained
    again: the same command goes on where it was stopped, and a changed config is trained anew.
    Changes of the code are not noticed; take another ``work_dir`` after them.

    Args:
        rows: The rows to train.
        seeds: Seeds to train each with, at least one, each once.
        work_dir: Folder in which each run gets a folder of its own.
        choice: How each row gets its value of an option; None: the config's.
        jobs: Number of trainings beside each other, each in a process of its own. With 0 nothing is
            trained, and only what is there is read. Default: 1.

    Attributes:
        states: What is known of each row, in their order.
        failures: The names of the runs that failed.

    Raises:
        FileNotFoundError: A data set that the choice needs does not exist.
        ValueError: A seed is given twice or there is none, ``jobs`` is negative, or the choice does
            not fit a row.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        seeds: Sequence[int],
        work_dir: str,
        choice: Choice | None = None,
        jobs: int = 1,
    ) -> None:
        twice = sorted({str(seed) for seed in seeds if list(seeds).count(seed) > 1})
        if twice:
            raise ValueError(
                f"seeds {', '.join(twice)} given twice, whose results could not be distinguished; "
                "give each only once"
            )
        if not seeds:
            raise ValueError("an ablation needs a seed, found none; give at least one")
        if jobs < 0:
            raise ValueError(f"jobs must be at least 0, found {jobs}; 0 only reads what is there")
        if choice is not None:
            for row in rows:
                choice.require_key(row)
            if jobs:
                for row in {row.config: row for row in reversed(rows)}.values():
                    require_held_out(row.load(), row.load(choice.options))
        self.states = [RowState(row) for row in rows]
        self.failures: list[str] = []
        self._seeds, self._work_dir = tuple(seeds), work_dir
        self._choice, self._jobs = choice, jobs

    def run(self, report: Callable[[str], object] = lambda line: None) -> None:
        """Train row by row. A run that fails is kept in ``failures``, and the others go on.

        Args:
            report: Function that is called with a line about each result, choice and failure.

        Raises:
            ValueError: A ``result.json`` cannot be read.
        """
        todo = []
        for index, state in enumerate(self.states):
            first = self._table_runs(state)
            if self._choice is not None:
                # Not a seed of the table, so that its results do not profit from the choice, and
                # the same one when the table gets more seeds.
                seed = next(seed for seed in itertools.count(1000) if seed not in self._seeds)
                first = [Run(state.row, seed, value, True) for value in self._choice.values]
            todo += [(index, run) for run in self._read(state, first, report)]
        if self._jobs:
            self._train(todo, report)

    @property
    def complete(self) -> list[RowState]:
        """The rows that have a result for each seed."""
        return [state for state in self.states if len(state.runs) == len(self._seeds)]

    def _table_runs(self, state: RowState) -> list[Run]:
        return [Run(state.row, seed, state.value) for seed in self._seeds]

    def _path(self, run: Run) -> Path:
        return Path(run.request(self._work_dir, self._choice).folder, _RESULT)

    def _read(
        self, state: RowState, runs: Sequence[Run], report: Callable[[str], object]
    ) -> list[Run]:
        """Take the results that are there, and return the runs to train."""
        todo = []
        for run in runs:
            path = self._path(run)
            if path.is_file():
                ended = EndedRun(run, _read_result(path))
                report(f"{ended} (from before)")
                todo += self._take(state, ended, report)
            else:
                todo.append(run)
        return todo

    def _take(self, state: RowState, ended: EndedRun, report: Callable[[str], object]) -> list[Run]:
        """Keep the result of a run, and return the runs that can begin now."""
        if not ended.run.choosing:
            state.runs.append(ended)
            return []
        assert self._choice is not None
        state.tried.append(ended)
        if len(state.tried) < len(self._choice.values):
            return []
        report(state.choose(self._choice))
        return self._read(state, self._table_runs(state), report)

    def _train(self, todo: list[tuple[int, Run]], report: Callable[[str], object]) -> None:
        running: dict[Future[Result], tuple[int, Run, Process]] = {}
        with ThreadPoolExecutor(self._jobs) as pool:
            try:
                while todo or running:
                    todo.sort(key=lambda entry: entry[0])  # finish one row before the next
                    while todo and len(running) < self._jobs:
                        index, run = todo.pop(0)
                        request = run.request(self._work_dir, self._choice)
                        process = Process(request, max(1, _cores() // self._jobs))
                        running[pool.submit(process.wait)] = index, run, process
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        index, run, _ = running.pop(future)
                        try:
                            ended = EndedRun(run, future.result())
                        except RunFailed as error:
                            self.failures.append(run.name)
                            report(f"failed: {run.name}: {error}")
                            continue
                        line = f"{json.dumps(asdict(ended.result))}\n"
                        write_text(line, self._path(run), overwrite=True)
                        report(str(ended))
                        state = self.states[index]
                        todo += [(index, new) for new in self._take(state, ended, report)]
            finally:
                for _, _, process in running.values():
                    process.end()


def _read_result(path: Path) -> Result:
    try:
        return Result(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is not a result of a run ({error}); remove it, and it is trained again"
        ) from error


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
