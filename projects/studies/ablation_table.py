"""The table of an ablation, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from projects.studies.page_tables import mean_and_deviation, table_line
from projects.studies.training_state import Choice, RowState


def ablation_table(states: Sequence[RowState], choice: Choice | None = None) -> str:
    """Make a Markdown table of means ± sample deviations over the seeds, with a line for each row.

    Args:
        states: The rows, each with at least one run.
        choice: How each row got its value, which gets a column; None: it got none.
    """
    metrics = dict.fromkeys(ended.metric for state in states for ended in state.runs)
    metric = " or ".join(metrics) or "metric"
    names = ["config", "switch"]
    numbers = [] if choice is None else [choice.option]
    numbers += ["seeds", metric, "fused", "parameters, fused", "layers fused"]
    lines = [
        table_line([*names, *numbers]),
        f"|{'---|' * len(names)}{'---:|' * len(numbers)}",
    ]
    for state in states:
        cells = [Path(state.row.config).stem, f"`{state.row.switch}`"]
        cells += [] if choice is None else [f"{state.value:g}"]
        cells += [
            str(len(state.runs)),
            mean_and_deviation([ended.trained for ended in state.runs]),
            mean_and_deviation([each.fused for each in state.runs if each.fused is not None]),
            f"{state.runs[0].result.parameters:,}",
            str(state.runs[0].result.num_fused),
        ]
        lines.append(table_line(cells))
    return "\n".join(lines)
