"""Trainings of a table: choose a value for each row, then train the row with several seeds."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path

from mmvanilla.checkpoints.writing import write_text
from projects.studies.ablation_rows import Row
from projects.studies.held_out import require_held_out
from projects.studies.result_file import ResultFile
from projects.studies.train_and_compare import Result
from projects.studies.training_process import Process, RunFailed
from projects.studies.training_state import Choice, EndedRun, RowState, Run

_RESULT = "result.json"


class Trainings:
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
        store: Path of a JSON file with the results of all runs, in addition to their folders: what
            it has is not trained again, and each new result is added. So the results of one machine
            are known on another one. None: no such file.

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
        store: str | None = None,
    ) -> None:
        twice = sorted({str(seed) for seed in seeds if list(seeds).count(seed) > 1})
        if twice:
            raise ValueError(
                f"seeds {', '.join(twice)} given twice, whose results could not be distinguished; "
                "give each only once"
            )
        if not seeds:
            raise ValueError("a training needs a seed, found none; give at least one")
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
        self._store = ResultFile(store) if store else None

    def run(self, report: Callable[[str], object] = lambda line: None) -> None:
        """Train row by row. A run that fails is kept in ``failures``, and the others go on.

        Args:
            report: Function that is called with a line about each result, choice and failure.

        Raises:
            ValueError: A ``result.json`` cannot be read, or a choice is to be made with a result of
                several metrics.
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

    def folder(self, run: Run) -> Path:
        """Return the folder of a run, with its log, config and checkpoints."""
        return Path(run.request(self._work_dir, self._choice).folder)

    def _read(
        self, state: RowState, runs: Sequence[Run], report: Callable[[str], object]
    ) -> list[Run]:
        """Take the results that are there, and return the runs to train."""
        todo = []
        for run in runs:
            result = self._known(run)
            if result is None:
                todo.append(run)
            else:
                ended = EndedRun(run, result)
                report(f"{ended} (from before)")
                todo += self._take(state, ended, report)
        return todo

    def _known(self, run: Run) -> Result | None:
        folder = self.folder(run)
        path = folder / _RESULT
        if path.is_file():
            try:
                result = Result(**json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{path} is not a result of a run ({error}); remove it, and it is trained again"
                ) from error
            if self._store:
                self._store.add(folder.name, result)
            return result
        return self._store.get(folder.name) if self._store else None

    def _take(self, state: RowState, ended: EndedRun, report: Callable[[str], object]) -> list[Run]:
        """Keep the result of a run, and return the runs that can begin now."""
        if not ended.run.choosing:
            state.runs.append(ended)
            return []
        assert self._choice is not None
        _ = ended.metric  # refuses several of them now, not after the last value
        state.tried.append(ended)
        if len(state.tried) < len(self._choice.values):
            return []
        report(state.choose(self._choice))
        return self._read(state, self._table_runs(state), report)

    def _keep(self, run: Run, result: Result) -> None:
        folder = self.folder(run)
        write_text(f"{json.dumps(asdict(result))}\n", folder / _RESULT, overwrite=True)
        if self._store:
            self._store.add(folder.name, result)

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
                        self._keep(run, ended.result)
                        report(str(ended))
                        state = self.states[index]
                        todo += [(index, new) for new in self._take(state, ended, report)]
            finally:
                for _, _, process in running.values():
                    process.end()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
