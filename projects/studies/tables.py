"""The table of a study in Markdown, and its place between two marks of a page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmvanilla.apis.timing import Timing
from mmvanilla.checkpoints.writing import write_text
from mmvanilla.utils.numerics import largest
from projects.studies.training import Result
from projects.studies.trainings import RowState

# What the toolboxes' tables report, with their titles there.
_HEADLINES = {
    "accuracy/top1": "top-1, %",
    "coco/bbox_mAP": "box mAP",
    "coco/segm_mAP": "mask mAP",
    "mIoU": "mIoU, %",
}


def results_table(
    states: Sequence[RowState],
    chosen: str | None = None,
    timings: Mapping[str, Timing] | None = None,
) -> str:
    """Make a Markdown table with a line for each row.

    The metrics are those of the fused networks, means ± sample deviations over the seeds. Beside
    them stands the largest change by fusing, of any of these metrics and any seed. A metric that a
    network does not have is a dash.

    Args:
        states: The rows, each with at least one result that was fused.
        chosen: Name of the option of which each row got its own value. None: no column.
        timings: Times of the fused networks by the name of the row. None: no column.
    """
    found = dict.fromkeys(
        name for state in states for result in state.results.values() for name in result.trained
    )
    metrics = [name for name in _HEADLINES if name in found] or list(found)
    has_switches = any(state.row.switch for state in states)
    names = ["network", *(["switch"] if has_switches else [])]
    numbers = [*([chosen] if chosen else []), "seeds"]
    numbers += [_HEADLINES.get(name, name) for name in metrics]
    numbers += ["changed by fusing", "parameters, M", "MACs, M", "backbone, M"]
    numbers += ["latency, ms"] if timings is not None else []
    numbers += ["training, CPU minutes"]
    lines = [_line([*names, *numbers]), f"|{'---|' * len(names)}{'---:|' * len(numbers)}"]
    for state in states:
        results = list(state.results.values())
        first = results[0]
        cells = [Path(state.row.config).stem, *([f"`{state.row.switch}`"] if has_switches else [])]
        cells += [f"{state.value:g}"] if chosen else []
        cells += [str(len(results)), *(_metric(results, name) for name in metrics)]
        cells += [
            _number(_most_changed(results)),
            f"{first.parameters / 1e6:.3g}",
            f"{first.macs / 1e6:.1f}",
            f"{first.backbone_macs / 1e6:.1f}",
        ]
        cells += [f"{timings[state.row.name].median:.2f}"] if timings is not None else []
        minutes = statistics.mean(result.cpu_minutes for result in results)
        cells += [f"{minutes:.0f}" if minutes >= 10 else f"{minutes:.1f}"]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    """Write one digit behind the point for a percentage, three for a share of 1."""
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"


def _metric(results: Sequence[Result], name: str) -> str:
    values = [result.fused[name] for result in results if result.fused and name in result.fused]
    if not values:
        return "–"
    mean = _number(statistics.mean(values))
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.{len(mean.partition('.')[2])}f}"


def _most_changed(results: Sequence[Result]) -> float:
    return largest(
        abs(value - result.trained[name])
        for result in results
        for name, value in (result.fused or {}).items()
    )


def write_table(page: str, name: str, table: str | None) -> None:
    """Write a table between its marks in a page, and leave the rest of it alone.

    Args:
        page: Path of a Markdown file with a line ``<!-- begin of table: NAME -->`` and one with
            ``end`` in place of ``begin``.
        name: Name of the table.
        table: The table; None only checks that there is a place for it.

    Raises:
        ValueError: The page does not have both marks, each once, in their order.
    """
    begin, end = (f"<!-- {word} of table: {name} -->" for word in ("begin", "end"))
    text = Path(page).read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    if text.count(begin) != 1 or text.count(end) != 1 or end not in rest:
        raise ValueError(f"{page} has no place for the table; write the lines {begin} and {end}")
    if table is not None:
        write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}", page, overwrite=True)
