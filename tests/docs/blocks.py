"""Read the blocks of code out of the pages, with the mark that says how a test handles each.

A mark is an HTML comment on the line before a block, which no reader sees::

    <!-- run -->             run it in an empty folder
    <!-- run: GROUP -->      run it after the blocks of the same group on the same page
    <!-- config -->          read it as a config, and build its model or backbone
    <!-- needs: THINGS -->   not run; its command lines are checked without running them

``<!-- every block needs: THINGS -->`` marks a page; projects/ and CONTRIBUTING.md are not run.
Python that begins with ``_base_``, ``custom_imports`` or ``model`` is a config without a mark.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from tests.helpers import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "projects").rglob("*.md")),
]
_BLOCK = re.compile(
    r"^(?: *<!-- (?P<kind>run|config|needs)(?:: (?P<detail>.+?))? -->\n)?"
    r"(?P<margin> *)```(?P<language>sh|python)\n(?P<code>.*?)^ *```$",
    flags=re.MULTILINE | re.DOTALL,
)
_PAGE_MARK = re.compile(r"^<!-- every block needs: .+? -->$", flags=re.MULTILINE)


class Block(NamedTuple):
    """A block of code in a page: its place, language, code, and mark."""

    place: str
    language: str
    code: str
    kind: str | None
    detail: str | None


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """Read the fenced blocks of a page that are shell commands or Python."""
    text = page.read_text(encoding="utf-8")
    is_run = page.name != "CONTRIBUTING.md" and "projects" not in page.parts
    default = None if is_run and not _PAGE_MARK.search(text) else "needs"
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("margin")) + 1
        code = re.sub(rf"^{match['margin']}", "", match["code"], flags=re.MULTILINE)
        kind = match["kind"] or default
        if kind is None and re.match(r"(_base_|custom_imports|model) = ", code):
            kind = "config"
        place = f"{name_of(page)}:{line}"
        found.append(Block(place, match["language"], code, kind, match["detail"]))
    return found


def commands_of(code: str) -> list[list[str]]:
    """Split a block into commands, each a list of words; comments and variables are left out."""
    commands = []
    for line in code.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s&&\s", line):
            words = shlex.split(part, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words:
                commands.append(words)
    return commands


def tool_of(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the name of our tool in a command and its arguments; None for another program."""
    for start in (["mmvanilla"], ["python", "-m", "mmvanilla"]):
        if words[: len(start)] == start and len(words) > len(start):
            return words[len(start)], words[len(start) + 1 :]
    if words[0] == "python" and len(words) > 1 and re.fullmatch(r"tools/\w+\.py", words[1]):
        return Path(words[1]).stem, words[2:]
    return None


ALL_BLOCKS = [block for page in PAGES for block in blocks_of(page)]
