"""Write the runner as one file beside an exported model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mmvanilla.deploy import runner

#: Name of the runner beside an exported file.
RUNNER_NAME = "predict.py"
_IMPORT = re.compile(r"^from mmvanilla\.deploy\.(\w+) import .*\n", re.MULTILINE)


def runner_text() -> str:
    """Return the runner as one file, in which its modules stand where they are imported."""
    path = Path(str(runner.__file__))
    seen = set()

    def inline(match: re.Match[str]) -> str:
        if match[1] in seen:
            return ""
        seen.add(match[1])
        text = path.with_name(f"{match[1]}.py").read_text(encoding="utf-8")
        return _IMPORT.sub(inline, text.replace("from __future__ import annotations\n", ""))

    return _IMPORT.sub(inline, path.read_text(encoding="utf-8"))


def runner_files(out: Path, with_runner: bool) -> list[Path]:
    """List the runner beside ``out``, if it is wanted and not there already."""
    path = out.with_name(RUNNER_NAME)
    is_there = path.is_file() and path.read_bytes() == runner_text().encode()
    return [path] if with_runner and not is_there else []


def write_runner(files: Iterable[Path]) -> None:
    """Write the runner, if it is among these files."""
    for path in files:
        if path.name == RUNNER_NAME:
            path.write_bytes(runner_text().encode())
