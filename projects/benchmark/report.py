"""Turn the results of a benchmark into ratios, tables and a plot."""

from __future__ import annotations

import statistics
import textwrap
from pathlib import Path
from typing import Any

from projects.benchmark.measure import TRAINING_STEP

_SETTING = ("mode", "dtype", "batch", "height", "width")

#: A title, the names of the columns, and the rows.
Table = tuple[str, list[str], list[list[str]]]


def speedups(results: list[dict[str, Any]], base: str) -> dict[tuple[str, str], float]:
    """Compare our networks with another form or network of the same variant and setting.

    Args:
        results: Entry ``results`` of :func:`projects.benchmark.measure.run_benchmark`.
        base: ``'reference'``, for the fused reference or its training step; or a form of ours.

    Returns:
        By the title of the setting and the form, how many times as fast ours is: the geometric mean
        over the variants.
    """
    timed = [entry for entry in results if "ms" in entry]
    bases = {
        (_title(entry), entry["arch"]): entry["ms"]["median"]
        for entry in timed
        if (entry["kind"] == "reference" and entry["form"] in ("fused", TRAINING_STEP))
        == (base == "reference")
        and (base == "reference" or (entry["kind"], entry["form"]) == ("ours", base))
    }
    ratios: dict[tuple[str, str], list[float]] = {}
    for entry in timed:
        median = bases.get((_title(entry), entry["arch"]))
        if entry["kind"] == "ours" and median is not None:
            form = entry["form"] + (", with_cp" if "with_cp" in entry["network"] else "")
            ratios.setdefault((_title(entry), form), []).append(median / entry["ms"]["median"])
    return {key: statistics.geometric_mean(values) for key, values in ratios.items()}


def describe(machine: dict[str, Any]) -> str:
    """Describe the machine in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    where = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    if machine["instructions"] and not machine.get("gpu"):
        where += f" with {', '.join(machine['instructions'])}"
    load = f"threads: {machine['threads']}, load before: {machine['load_before']}"
    return f"{where}; {load}; {versions}"


def tabulate(report: dict[str, Any]) -> list[Table]:
    """Make a table for each setting, with the forms as columns, and those of the ratios."""
    tables: list[Table] = []
    results = report["results"]
    for title in dict.fromkeys(map(_title, results)):
        entries = [entry for entry in results if _title(entry) == title]
        forms = list(dict.fromkeys(entry["form"] for entry in entries))
        networks = list(dict.fromkeys(entry["network"] for entry in entries))
        cells = {(entry["network"], entry["form"]): _cell(entry) for entry in entries}
        rows = [[name, *(cells.get((name, form), "") for form in forms)] for name in networks]
        tables.append((f"ms (median), {title}", ["network", *forms], rows))
        memory = [
            [entry["network"], entry["form"], *(_number(entry.get(key)) for key in _MEMORY)]
            for entry in entries
            if "saved_mb" in entry
        ]
        if memory:
            tables.append((f"memory, {title}", ["network", "form", *_MEMORY.values()], memory))
    for base in ("reference", "onnxruntime"):
        found = speedups(results, base)
        rows = [[title, form, f"{ratio:.2f}"] for (title, form), ratio in found.items()]
        if rows:
            name = f"VanillaNets against {base}, geometric mean"
            tables.append((name, ["setting", "form", "times as fast"], rows))
    missing = [
        [entry["network"], entry["form"], _title(entry), entry["not_measured"].replace("|", "/")]
        for entry in results
        if "not_measured" in entry
    ]
    if missing:
        tables.append(("not measured", ["network", "form", "setting", "reason"], missing))
    return tables


_MEMORY = {"saved_mb": "saved for backward, MB", "peak_mb": "peak, MB"}


def to_markdown(report: dict[str, Any]) -> str:
    """Write the machine and the tables of :func:`tabulate` in Markdown."""
    parts = [describe(report["machine"])]
    for title, columns, rows in tabulate(report):
        aligned = ["---", *["---:"] * (len(columns) - 1)]
        lines = [f"| {' | '.join(line)} |" for line in (columns, aligned, *rows)]
        parts += [f"**{title}**", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _title(entry: dict[str, Any]) -> str:
    mode, dtype, batch, height, width = (entry[key] for key in _SETTING)
    return f"{mode}, batch {batch}, {height}x{width}, {dtype}"


def _cell(entry: dict[str, Any]) -> str:
    return _number(entry["ms"]["median"]) if "ms" in entry else "–"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def save_plot(report: dict[str, Any], path: str | Path) -> bool:
    """Plot measured latency against published accuracy, with a panel for each setting.

    Args:
        report: Result of :func:`projects.benchmark.measure.run_benchmark`.
        path: Path of the ``.png`` file to write.

    Returns:
        Whether there was anything to plot: a classification that was timed.
    """
    from matplotlib.figure import Figure

    plotted = [
        entry
        for entry in report["results"]
        if entry["mode"] == "forward" and entry["kind"] != "reference" and "ms" in entry
    ]
    titles = list(dict.fromkeys(map(_title, plotted)))
    if not titles:
        return False
    figure = Figure(figsize=(8 * len(titles), 7), layout="constrained")
    panels = figure.subplots(1, len(titles), squeeze=False)[0]
    for panel, title in zip(panels, titles, strict=True):
        here = [entry for entry in plotted if _title(entry) == title]
        for index, form in enumerate(dict.fromkeys(entry["form"] for entry in here)):
            for kind, style in (("ours", "o-"), ("peer", "s")):
                drawn = [each for each in here if (each["form"], each["kind"]) == (form, kind)]
                drawn.sort(key=lambda entry: entry["published_top1"])
                if drawn:
                    panel.plot(
                        [entry["ms"]["median"] for entry in drawn],
                        [entry["published_top1"] for entry in drawn],
                        style,
                        color=f"C{index}",
                        label=f"{'VanillaNet' if kind == 'ours' else 'peers'}, {form}",
                    )
        for name in dict.fromkeys(entry["network"] for entry in here):
            slowest = max(
                (entry for entry in here if entry["network"] == name),
                key=lambda entry: entry["ms"]["median"],
            )
            point = (slowest["ms"]["median"], slowest["published_top1"])
            panel.annotate(name, point, xytext=(6, 4), textcoords="offset points", fontsize=7)
        panel.set(xscale="log", title=title, xlabel="latency measured here, ms (median)")
        panel.set_ylabel("ImageNet-1k top-1 as published, %")
        panel.grid(alpha=0.3, which="both")
        panel.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.12), ncols=3)
    figure.suptitle("\n".join(textwrap.wrap(describe(report["machine"]), 100)), fontsize="small")
    figure.savefig(path, dpi=120)
    return True
