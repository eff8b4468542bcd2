"""Make the tables of the page on a GPU."""

from __future__ import annotations

from typing import Any

from projects.benchmark.networks import PUBLISHED_LATENCY, PUBLISHED_TOP1

_HEADINGS = {
    "fused": "NCHW",
    "cuda_graph_nchw": "CUDA graph",
    "cuda_graph": "CUDA graph, channels_last",
    "compiled": "torch.compile",
    "max_autotune": "max-autotune",
    "onnxruntime": "ONNX Runtime",
}


class Cell:
    """One cell of the plan and what is known of it.

    Args:
        name: Name of the cell, as in :meth:`projects.benchmark.gpu_plan.Group.cells`.
        entry: Its entry in the results; None if its turn has not come.
    """

    def __init__(self, name: str, entry: dict[str, Any] | None) -> None:
        self.name = name
        self.question, self.precision, size, self.network, self.form = name.split("/")
        self.batch = int(size.partition("x")[0])
        self.size = size.partition("x")[2].replace("x", "×")
        self.entry = entry or {}
        self.is_known = entry is not None
        self.label = str(self.entry.get("label", self.network))
        ms = self.entry.get("ms")
        self.ms: float | None = ms and ms["median"]

    def figure(self) -> str:
        """The median with its quartiles, or why there is none."""
        if self.ms is None:
            return "–" if self.is_known else ""
        ms = self.entry["ms"]
        return f"{_short(ms['median'])} ({_short(ms['low'])}–{_short(ms['high'])})"


def forward_table(cells: list[Cell]) -> str:
    """Make the table of forward passes: a row for each network and setting."""
    forms = list(dict.fromkeys(cell.form for cell in cells))
    columns = ["network", "precision", "batch"]
    columns += [f"{_HEADINGS.get(form, form)}, ms" for form in forms]
    columns += ["fastest on the GPU, ms", "images/s", "TFLOP/s", "× reference"]
    rows = []
    for own in _by_row(cells):
        measured = [cell for cell in own.values() if cell.ms is not None]
        first = next(iter(own.values()))
        row = [first.label, first.precision, str(first.batch)]
        row += [own[form].figure() if form in own else "" for form in forms]
        if not measured:
            rows.append([*row, "", "", "", ""])
            continue
        best = min(measured, key=lambda cell: cell.ms or 0.0)
        assert best.ms is not None
        rate = 1e3 * best.batch / best.ms
        row += [_short(best.entry["device_ms"]["median"]), _short(rate)]
        gmacs = best.entry.get("gmacs")
        row.append("" if gmacs is None else _short(2e-3 * gmacs * rate))
        rows.append([*row, _times_reference(best, cells)])
    note = "*× reference*: the time of the plain reference in NCHW over that of the fastest form."
    return f"{_table(columns, rows)}\n\n{note}"


def _times_reference(best: Cell, cells: list[Cell]) -> str:
    for cell in cells:
        same = (cell.precision, cell.batch) == (best.precision, best.batch)
        if same and cell.network == f"reference-{best.network}" and cell.form == "fused":
            return "" if cell.ms is None or best.ms is None else f"{cell.ms / best.ms:.2f}"
    return ""


def _published_table(cells: list[Cell]) -> str:
    columns = ["network", "top-1 %, published", "ms, published by the authors (their GPU)"]
    columns += ["NCHW, ms", "on the GPU, ms", "CUDA graph, ms"]
    rows = []
    for own in _by_row(cells):
        first = next(iter(own.values()))
        name = first.network.removeprefix("reference-")
        top1 = PUBLISHED_TOP1.get(name, first.entry.get("published_top1"))
        eager, graph = own["fused"], own["cuda_graph_nchw"]
        on_device = eager.entry.get("device_ms")
        rows.append(
            [
                first.label,
                "" if top1 is None else f"{top1:.2f}",
                _short(PUBLISHED_LATENCY.get(name)),
                eager.figure(),
                _short(on_device and on_device["median"]),
                graph.figure(),
            ]
        )
    note = (
        f"One image of {cells[0].size}, in {cells[0].precision}, which is what PyTorch takes for "
        "convolutions by default. How and on which GPU the authors timed is not known to us, so "
        "compare the order and the ratios first."
    )
    return f"{note}\n\n{_table(columns, rows)}"


def _training_table(cells: list[Cell]) -> str:
    forms = list(dict.fromkeys(cell.form for cell in cells))
    columns = ["network", "precision", "batch", *(f"{form}, ms" for form in forms)]
    columns += ["images/s, fastest", "saved for backward, MB", "peak beyond the weights, MB"]
    rows = []
    for own in _by_row(cells):
        measured = [cell for cell in own.values() if cell.ms is not None]
        first = next(iter(own.values()))
        row = [first.label, first.precision, str(first.batch)]
        row += [own[form].figure() if form in own else "" for form in forms]
        if not measured:
            rows.append([*row, "", "", ""])
            continue
        best = min(measured, key=lambda cell: cell.ms or 0.0)
        assert best.ms is not None
        row.append(_short(1e3 * best.batch / best.ms))
        row += [_whole(best.entry.get(key)) for key in ("saved_mb", "peak_mb")]
        rows.append(row)
    note = (
        "A step is forward, cross entropy and backward at λ = 1, without an optimiser. *amp* is "
        "autocast with weights in fp32, for fp16 with the loss times 1024. The megabytes are those "
        "of the fastest form."
    )
    return f"{_table(columns, rows)}\n\n{note}"


def _detector_table(cells: list[Cell]) -> str:
    rows = [[cell.network, cell.precision, cell.size, cell.figure()] for cell in cells]
    note = (
        "Prediction with the heads, backbone fused. Weights are random, so the number of boxes is "
        "not that of a trained detector: this bounds the time from below."
    )
    return f"{_table(['detector', 'precision', 'image', 'ms'], rows)}\n\n{note}"


#: The table of each question; all others have that of :func:`forward_table`.
TABLES = {
    "published": _published_table,
    "training": _training_table,
    "detector": _detector_table,
}


def _by_row(cells: list[Cell]) -> list[dict[str, Cell]]:
    """Collect the forms of each network in each setting, by form."""
    rows: dict[tuple[str, str, int], dict[str, Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.network, cell.precision, cell.batch), {})[cell.form] = cell
    return list(rows.values())


def _table(columns: list[str], rows: list[list[str]]) -> str:
    rule = ["---" if index < 1 else "---:" for index in range(len(columns))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *rows))


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _short(value: float | None) -> str:
    """Write a number with three digits."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
