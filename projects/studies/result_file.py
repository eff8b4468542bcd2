"""One JSON file with the results of many trainings, which can be kept beside the tables."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mmvanilla.checkpoints.writing import write_text
from projects.studies.train_and_compare import Result


class ResultFile:
    """The results of trainings by the names of their folders, a line for each.

    Args:
        path: Path of the file; it appears with the first result.

    Raises:
        ValueError: The file cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._results: dict[str, Result] = {}
        if self._path.is_file():
            try:
                found = json.loads(self._path.read_text(encoding="utf-8"))
                self._results = {name: Result(**result) for name, result in found.items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path} does not hold the results of trainings ({error}); name another file"
                ) from error

    def get(self, name: str) -> Result | None:
        """Return the result of a training, or None if it is not known."""
        return self._results.get(name)

    def add(self, name: str, result: Result) -> None:
        """Add or replace the result of a training, in the file too."""
        if self._results.get(name) == result:
            return
        self._results[name] = result
        lines = [
            f"  {json.dumps(key)}: {json.dumps(asdict(self._results[key]))}"
            for key in sorted(self._results)
        ]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        write_text(text, self._path, overwrite=self._path.exists())
