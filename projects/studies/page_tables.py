"""Lines of Markdown tables, and the place of a table between two marks of a page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from mmvanilla.checkpoints.writing import write_text
from projects.studies.training_state import write_metric


def table_line(cells: Sequence[str]) -> str:
    """Join the cells of one line."""
    return f"| {' | '.join(cells)} |"


def mean_and_deviation(values: Sequence[float]) -> str:
    """Write the mean of a metric ± its sample deviation; the mean alone for one value."""
    mean = write_metric(statistics.mean(values))
    if len(values) == 1:
        return mean
    digits = len(mean.partition(".")[2])
    return f"{mean} ± {statistics.stdev(values):.{digits}f}"


def marks(name: str) -> tuple[str, str]:
    """Return the two lines of a page between which the table of this name stands."""
    return f"<!-- begin of table: {name} -->", f"<!-- end of table: {name} -->"


def require_marks(page: str, name: str) -> None:
    """Refuse a page that has no place for a table.

    Raises:
        FileNotFoundError: The page does not exist.
        ValueError: It does not have both marks, each once, in their order.
    """
    _parts(page, name)


def write_table(page: str, name: str, table: str) -> None:
    """Write a table between its marks in a page, and leave the rest of it alone.

    Args:
        page: Path of a Markdown file with the two lines of :func:`marks`.
        name: Name of the table.
        table: The table.

    Raises:
        FileNotFoundError: The page does not exist.
        ValueError: It does not have both marks, each once, in their order.
    """
    before, after = _parts(page, name)
    begin, end = marks(name)
    write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}", page, overwrite=True)


def _parts(page: str, name: str) -> tuple[str, str]:
    if not Path(page).is_file():
        raise FileNotFoundError(f"no page at {page}; check the path and the working directory")
    text = Path(page).read_text(encoding="utf-8")
    begin, end = marks(name)
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end or begin in rest or end in after or end in before:
        raise ValueError(
            f"{page} has no place for the table; write the lines {begin} and {end} into it, each "
            "once"
        )
    return before, after
