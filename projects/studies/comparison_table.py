"""The table that puts trained networks side by side, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmvanilla.apis.timing import Timing
from projects.studies.page_tables import mean_and_deviation, table_line
from projects.studies.training_state import EndedRun, RowState, write_metric

# What the toolboxes' tables report, with their titles there.
_HEADLINES = {
    "accuracy/top1": "top-1, %",
    "coco/bbox_mAP": "box mAP",
    "coco/segm_mAP": "mask mAP",
    "mIoU": "mIoU, %",
}


def comparison_table(
    states: Sequence[RowState], timings: Mapping[str, Timing] | None = None
) -> str:
    """Make a Markdown table with a line for each network.

    The metrics are those of the fused networks, means ± sample deviations over the seeds. Beside
    them stands the largest change by fusing, of any of these metrics and any seed. A metric that a
    network does not have is a dash.

    Args:
        states: The rows, each with at least one run that was fused.
        timings: The times of :func:`~projects.studies.train_and_compare.time_fused` by the name
            of the row. None: no column.
    """
    found = dict.fromkeys(
        name for state in states for ended in state.runs for name in ended.result.trained
    )
    metrics = [name for name in _HEADLINES if name in found] or list(found)
    titles = [_HEADLINES.get(name, name) for name in metrics]
    numbers = ["seeds", *titles, "changed by fusing", "parameters, M", "MACs, M", "backbone, M"]
    numbers += ["latency, ms"] if timings is not None else []
    numbers += ["training, CPU minutes"]
    lines = [table_line(["network", *numbers]), f"|---|{'---:|' * len(numbers)}"]
    for state in states:
        first = state.runs[0].result
        cells = [Path(state.row.config).stem, str(len(state.runs))]
        cells += [_metric(state.runs, name) for name in metrics]
        cells += [
            write_metric(_most_changed(state.runs, metrics)),
            f"{first.parameters / 1e6:.2f}",
            f"{first.macs / 1e6:.1f}",
            f"{first.backbone_macs / 1e6:.1f}",
        ]
        if timings is not None:
            cells.append(f"{timings[state.row.name].median:.2f}")
        minutes = statistics.mean(ended.result.cpu_minutes for ended in state.runs)
        cells.append(f"{minutes:.0f}" if minutes >= 10 else f"{minutes:.1f}")
        lines.append(table_line(cells))
    return "\n".join(lines)


def _fused(ended: EndedRun) -> dict[str, float]:
    assert ended.result.fused is not None, f"{ended.run.name} was not fused"
    return ended.result.fused


def _metric(runs: Sequence[EndedRun], name: str) -> str:
    values = [_fused(ended)[name] for ended in runs if name in _fused(ended)]
    return mean_and_deviation(values) if values else "–"


def _most_changed(runs: Sequence[EndedRun], metrics: Sequence[str]) -> float:
    return max(
        abs(_fused(ended)[name] - ended.result.trained[name])
        for ended in runs
        for name in metrics
        if name in ended.result.trained
    )
