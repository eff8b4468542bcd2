"""Tables of ablations in Markdown, alone or between the marks of a page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from mmvanilla.analysis.ablation_state import Choice, RowState
from mmvanilla.checkpoints.writing import write_text

BEGIN, END = "<!-- begin of the table -->", "<!-- end of the table -->"


def ablation_table(states: Sequence[RowState], choice: Choice | None = None) -> str:
    """Make a Markdown table of means ± sample deviations over the seeds, with a line for each row.

    Args:
        states: The rows, each with at least one run.
        choice: How each row got its value, which gets a column; None: it got none.
    """
    metrics = dict.fromkeys(ended.result.metric for state in states for ended in state.runs)
    metric = " or ".join(metrics) or "metric"
    names = ["config", "switch"]
    numbers = [] if choice is None else [choice.option]
    numbers += ["seeds", metric, "fused", "parameters, fused", "layers fused"]
    lines = [
        _line([*names, *numbers]),
        f"|{'---|' * len(names)}{'---:|' * len(numbers)}",
    ]
    for state in states:
        results = [ended.result for ended in state.runs]
        cells = [Path(state.row.config).stem, f"`{state.row.switch}`"]
        cells += [] if choice is None else [f"{state.value:g}"]
        cells += [
            str(len(results)),
            _mean_and_deviation([result.trained for result in results]),
            _mean_and_deviation([each.fused for each in results if each.fused is not None]),
            f"{results[0].parameters:,}",
            str(results[0].num_fused),
        ]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mean_and_deviation(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def require_marks(page: str) -> None:
    """Refuse a page that has no place for a table.

    Raises:
        FileNotFoundError: The page does not exist.
        ValueError: It does not have both marks, each once, in their order.
    """
    _parts(page)


def write_table(page: str, table: str) -> None:
    """Write a table between the marks of a page, and leave the rest of it alone.

    Args:
        page: Path of a Markdown file with the lines ``BEGIN`` and ``END``.
        table: The table.

    Raises:
        FileNotFoundError: The page does not exist.
        ValueError: It does not have both marks, each once, in their order.
    """
    before, after = _parts(page)
    write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", page, overwrite=True)


def _parts(page: str) -> tuple[str, str]:
    if not Path(page).is_file():
        raise FileNotFoundError(f"no page at {page}; check the path and the working directory")
    text = Path(page).read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after or END in before:
        raise ValueError(
            f"{page} has no place for the table; write the lines {BEGIN} and {END} into it, each "
            "once"
        )
    return before, after
