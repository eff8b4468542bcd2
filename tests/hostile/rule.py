"""The one rule for what a user must see when what he hands in is broken.

The tool ends with a status other than 0; it prints one line that begins with ``error:``, no
traceback; the line names the file (or the option) and says what to do; no file was written, changed
or deleted; nothing that stands in a file was executed.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers import ROOT

#: What a file whose content is executed creates (see broken.py).
CANARY = "executed"
# A remedy is an instruction: one of these words begins it.
_REMEDY = re.compile(
    r"\b(run|use|give|name|set|pass|take|choose|add|fetch|make|put|load|build|train|install|delete|"
    r"remove|free|check|write|convert|correct|expected|download|inherit|point|start|list|leave|drop|"
    r"have|save|see|rename|repair|replace|there are|needs?|must)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Outcome:
    """What one run of a tool left behind.

    Attributes:
        status: The exit status; negative for a signal.
        output: Everything on standard output.
        errors: Everything on standard error.
        changed: Files and folders that appeared, changed or went, relative to the run's folder.
    """

    status: int
    output: str
    errors: str
    changed: tuple[str, ...]


class Tools:
    """The tools of the project, run by the server in ``server.py``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_environment(),
        )
        assert self._answer() == {"ready": True}

    def run(self, tool: str, *arguments: Any, folder: Path, **order: Any) -> Outcome:
        """Run a tool in a folder.

        Args:
            tool: File name in tools/.
            arguments: Arguments of the command line.
            folder: Folder to run in; the output is written to its parent folder.
            order: ``limits`` (names of the resource module to numbers), ``timeout`` in seconds,
                ``environment``.
        """
        before = snapshot(folder)
        request = dict(tool=tool, arguments=[str(item) for item in arguments], folder=str(folder))
        assert self._process.stdin is not None
        print(json.dumps({**request, **order}), file=self._process.stdin, flush=True)
        status = self._answer()["status"]
        after = snapshot(folder)
        changed = {
            path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
        }
        output, errors = (
            (folder.parent / name).read_text(errors="replace")
            for name in ("stdout.txt", "stderr.txt")
        )
        return Outcome(status, output, errors, tuple(sorted(changed)))

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server of the hostile cases died"
        return json.loads(line)

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=30)


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def snapshot(folder: Path) -> dict[str, str]:
    """Every path below a folder with a digest of its content; caches of Python do not count."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts:
            continue
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.is_symlink():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if path.is_dir() else "other"
    return found


def assert_refused(
    outcome: Outcome, names: str, folder: Path, may_write: tuple[str, ...] = ()
) -> str:
    """Hold a run against the rule.

    Args:
        outcome: Result of the run.
        names: Name of the file or option that the error line must contain.
        folder: Folder in which the tool ran.
        may_write: Folders whose content may change: a work dir takes the log of a run.

    Returns:
        The one error line of the tool.
    """
    told = f"status {outcome.status}\n{outcome.output[-1500:]}\n{outcome.errors[-3000:]}"
    assert outcome.status > 0, told
    assert "Traceback" not in outcome.errors + outcome.output, told
    lines = [line for line in outcome.errors.splitlines() if re.match(r"(\S+: )?error: ", line)]
    assert len(lines) == 1, told
    assert names in lines[0], told
    assert _REMEDY.search(lines[0]), f"no remedy in: {lines[0]}"
    assert not (folder / CANARY).exists(), f"something in the file was executed: {told}"
    written = [
        path
        for path in outcome.changed
        if not any(path == allowed or path.startswith(f"{allowed}/") for allowed in may_write)
        or path.endswith((".pth", ".onnx"))
    ]
    assert not written, f"written, changed or deleted: {written}\n{told}"
    return lines[0]
