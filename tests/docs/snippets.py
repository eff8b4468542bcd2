"""Read the blocks of code out of the pages, with the mark that says how a test handles each.

A mark is an HTML comment on the line before a block, which no reader sees::

    <!-- run -->             run it in an empty folder
    <!-- run: GROUP -->      run it after the blocks of the same group on the same page
    <!-- config -->          read it as a config, build what it names
    <!-- needs: THINGS -->   not run; checked as far as that goes without these things

``<!-- every block needs: THINGS -->`` on a line of its own marks the blocks of a whole page. Python
that assigns to ``_base_``, ``custom_imports`` or ``model`` is a config without being marked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import ROOT

LANGUAGES = ("sh", "python")
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "site" not in path.parts),
]
_MARK = re.compile(r"<!-- (run|config|needs)(?:: (.+?))? -->")
_CONFIG = re.compile(r"(_base_|custom_imports|model) = ")
_PAGE_MARK = re.compile(r"^<!-- every block needs: (.+?) -->$", flags=re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code in a page.

    Attributes:
        page: The page, relative to the root of the project.
        line: Number of the line that the block begins at.
        language: ``"sh"`` or ``"python"``.
        code: What stands in it.
        kind: ``"run"``, ``"config"`` or ``"needs"``; None if the block has no mark.
        detail: The group of a block to run, or what a block needs.
    """

    page: str
    line: int
    language: str
    code: str
    kind: str | None
    detail: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    """Read the blocks of a page, fenced ones and indented ones."""
    text = path.read_text(encoding="utf-8")
    page = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    everything = _PAGE_MARK.search(text)
    found = []
    lines = text.splitlines()
    index = 0
    while index < len(lines):
        fence = re.match(r"( *)```(\w*)$", lines[index])
        indented = re.match(r" {4}\S", lines[index]) and (index == 0 or not lines[index - 1])
        if not fence and not (indented and not _in_list(lines, index)):
            index += 1
            continue
        start = index
        if fence:
            end = next(i for i in range(start + 1, len(lines)) if lines[i].strip() == "```")
            language, code = fence[2], lines[start + 1 : end]
        else:
            end = start
            while end + 1 < len(lines) and (
                lines[end + 1].startswith("    ") or not lines[end + 1]
            ):
                end += 1
            language, code = "sh", lines[start : end + 1]
        index = end + 1
        if language not in LANGUAGES and language not in ("", "text", "mermaid", "bibtex"):
            raise ValueError(f"{page}:{start + 1} is in {language}; write one of {LANGUAGES}")
        if language not in LANGUAGES:
            continue
        mark = _MARK.fullmatch(lines[start - 1].strip()) if start else None
        kind, detail = (mark[1], mark[2]) if mark else (None, None)
        if kind is None and language == "python" and _CONFIG.match("\n".join(code)):
            kind = "config"
        if kind is None and everything:
            kind, detail = "needs", everything[1]
        margin = len(fence[1]) if fence else 4
        text_of_block = "\n".join(line[margin:] for line in code).rstrip() + "\n"
        found.append(Block(page, start + 1, language, text_of_block, kind, detail))
    return found


def _in_list(lines: list[str], index: int) -> bool:
    """Tell whether an indented line continues an item of a list."""
    before = [line for line in lines[:index] if line and not line.startswith("    ")]
    return bool(before) and re.match(r"\s*([-*]|\d+\.) ", before[-1]) is not None


ALL_BLOCKS = [block for page in PAGES for block in blocks_of(page)]
