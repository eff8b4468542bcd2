"""Turn the results of a benchmark into ratios, tables and a plot."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

TRAINING_STEP = "training step"
_SETTING = ("mode", "dtype", "batch", "height", "width")


def compare_with_reference(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare our networks with the plain reference: speed, and activations saved for backward.

    Inference is compared with the deploy form of the reference, training with its training step.
    The results of several variants are combined by the geometric mean.

    Args:
        results: Entry ``results`` of the report of :func:`projects.benchmark.run.run_benchmark`.

    Returns:
        A dict for each setting and form, with ``archs``, ``times_as_fast`` and ``saved_ratio``.
    """
    references = {
        (tuple(entry[key] for key in _SETTING), entry["arch"]): entry
        for entry in results
        if entry["kind"] == "reference"
        and entry["form"] in ("fused", TRAINING_STEP)
        and "ms" in entry
    }
    ratios: dict[tuple[Any, ...], list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for entry in results:
        setting = tuple(entry[key] for key in _SETTING)
        reference = references.get((setting, entry["arch"]))
        if entry["kind"] == "ours" and "ms" in entry and reference:
            ratios.setdefault((*setting, entry["form"]), []).append((entry, reference))
    return [
        dict(
            zip((*_SETTING, "form"), group, strict=True),
            archs=[ours["arch"] for ours, _ in members],
            times_as_fast=statistics.geometric_mean(
                reference["ms"]["median"] / ours["ms"]["median"] for ours, reference in members
            ),
            saved_ratio=statistics.geometric_mean(
                ours["saved_mb"] / reference["saved_mb"] for ours, reference in members
            )
            if all("saved_mb" in ours for ours, _ in members)
            else None,
        )
        for group, members in ratios.items()
    ]


def compare_with_onnxruntime(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare OpenVINO and int8 with ONNX Runtime in fp32, over the VanillaNets of a setting.

    Args:
        results: Entry ``results`` of the report of :func:`projects.benchmark.run.run_benchmark`.

    Returns:
        A dict for each setting and form, and for the faster int8 of both runtimes, with ``archs``
        and ``times_as_fast``, the geometric mean over them.
    """
    medians: dict[tuple[Any, ...], dict[str, dict[str, float]]] = {}
    for entry in results:
        if entry["kind"] == "ours" and "ms" in entry:
            setting = tuple(entry[key] for key in _SETTING)
            forms = medians.setdefault(setting, {}).setdefault(entry["arch"], {})
            forms[entry["form"]] = entry["ms"]["median"]
    ratios = []
    for setting, archs in medians.items():
        for forms in archs.values():
            both = [forms[name] for name in ("int8", "openvino_int8") if name in forms]
            if len(both) == 2:
                forms["faster int8"] = min(both)
        for form in ("int8", "openvino", "openvino_int8", "faster int8"):
            members = {
                arch: forms["onnxruntime"] / forms[form]
                for arch, forms in archs.items()
                if "onnxruntime" in forms and form in forms
            }
            if members:
                mean = statistics.geometric_mean(members.values())
                names = dict(zip((*_SETTING, "form"), (*setting, form), strict=True))
                ratios.append(dict(names, archs=list(members), times_as_fast=mean))
    return ratios


def describe(machine: dict[str, Any]) -> str:
    """Describe the machine in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    device = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    if machine.get("instructions") and not machine.get("gpu"):
        device += f" with {', '.join(machine['instructions'])}"
    load = f", load before {machine['load_before']}" if "load_before" in machine else ""
    peaks = [f"{gflops:.0f} GFLOP/s in {name}" for name, gflops in machine["peak_gflops"].items()]
    return (
        f"{device}, threads: {machine['threads']}, {versions}{load}; "
        f"a large dense layer runs at {', '.join(peaks)}"
    )


def tabulate(report: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Make a table for each setting and each profile, and one of speed-ups over the reference.

    Args:
        report: Result of :func:`projects.benchmark.run.run_benchmark`.

    Returns:
        The title, the column names and the rows of each table.
    """
    tables = []
    for title, entries in _by_setting(report["results"]):
        is_training = entries[0]["mode"] == "train"
        extra = ["saved MB", "peak MB"] if is_training else ["GFLOP/s", "top-1 %, published"]
        columns = ["network", "form", "median ms", "quartiles ms", "images/s", *extra]
        rows = [[entry["network"], entry["form"], *_cells(entry, is_training)] for entry in entries]
        tables.append((title, columns, rows))
        tables += [_profile_table(entry) for entry in entries if entry.get("operators")]
    if report["speedups"]:
        columns = ["setting", "form", "archs", "times as fast", "saved for backward"]
        rows = []
        for ratio in report["speedups"]:
            saved = ratio["saved_ratio"]
            share = "" if saved is None else f"{saved:.3f} of it"
            archs = " ".join(ratio["archs"])
            rows.append(
                [_title(ratio), ratio["form"], archs, f"{ratio['times_as_fast']:.2f}", share]
            )
        tables.append(("against the plain reference of the same variant", columns, rows))
    if report.get("onnxruntime_ratios"):
        columns = ["setting", "form", "archs", "times as fast"]
        rows = [
            [_title(row), row["form"], " ".join(row["archs"]), f"{row['times_as_fast']:.2f}"]
            for row in report["onnxruntime_ratios"]
        ]
        tables.append(("against ONNX Runtime in fp32 of the same variant", columns, rows))
    return tables


def _profile_table(entry: dict[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    total = entry["ms"]["median"]
    rows = [
        [
            row["operator"],
            " and ".join("x".join(map(str, shape)) for shape in row["shapes"]),
            f"{row['calls']:g}",
            f"{row['ms']:.1f}",
            f"{100 * row['ms'] / total:.0f}",
        ]
        for row in entry["operators"]
    ]
    title = f"profile of {entry['network']} {entry['form']}, {_title(entry)}"
    return title, ["operator", "inputs", "calls", "ms a run", "% of the median"], rows


def make_tables(report: dict[str, Any]) -> Group:
    """Format the tables of :func:`tabulate` for a terminal."""
    tables = []
    for title, columns, rows in tabulate(report):
        table = Table(title=title, title_justify="left")
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index < 2 else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        tables.append(table)
    return Group(describe(report["machine"]), *tables)


def to_markdown(report: dict[str, Any]) -> str:
    """Format the tables of :func:`tabulate` as Markdown."""
    parts = [describe(report["machine"])]
    for title, columns, rows in tabulate(report):
        lines = [columns, ["---"] * len(columns), *rows]
        parts.append(f"**{title}**")
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def _cells(entry: dict[str, Any], is_training: bool) -> list[str]:
    if is_training:
        extra = [_number(entry.get("saved_mb")), _number(entry.get("peak_mb"))]
    else:
        extra = [_gflops(entry), _number(entry["published_top1"], 2)]
    if "ms" not in entry:
        return [f"not measured: {entry['not_measured']}", "", "", *extra]
    ms = entry["ms"]
    rate = 1e3 * entry["batch"] / ms["median"]
    quartiles = f"{ms['low']:.1f} to {ms['high']:.1f}"
    return [_number(ms["median"]), quartiles, _number(rate), *extra]


def _gflops(entry: dict[str, Any]) -> str:
    # 10⁹ operations per second; a multiplication and an addition are two operations.
    if "ms" not in entry:
        return ""
    return f"{2e3 * entry['gmacs'] * entry['batch'] / entry['ms']['median']:.0f}"


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _title(entry: dict[str, Any]) -> str:
    size = f"{entry['height']}x{entry['width']}"
    return f"{entry['mode']}, batch {entry['batch']}, {size}, {entry['dtype']}"


def _by_setting(results: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in results:
        groups.setdefault(_title(entry), []).append(entry)
    yield from groups.items()


def can_plot(report: dict[str, Any]) -> bool:
    """Tell whether there is anything that :func:`save_plot` can draw."""
    return any(_plotted(entry) for entry in report["results"])


def _plotted(entry: dict[str, Any]) -> bool:
    """Tell whether an entry is plotted: classification with a published accuracy."""
    return (
        entry["mode"] == "forward"
        and entry["kind"] != "reference"
        and "ms" in entry
        and entry["published_top1"] is not None
    )


def save_plot(report: dict[str, Any], path: str | Path) -> None:
    """Plot measured latency against published accuracy, with a panel for each setting.

    Args:
        report: Result of :func:`projects.benchmark.run.run_benchmark`.
        path: Path of the ``.png`` file to write.

    Raises:
        ValueError: There is nothing to plot.
    """
    from matplotlib.figure import Figure

    groups = [
        (title, [entry for entry in entries if _plotted(entry)])
        for title, entries in _by_setting(report["results"])
        if any(map(_plotted, entries))
    ]
    if not groups:
        raise ValueError("nothing to plot: no classification with a published accuracy was timed")
    figure = Figure(figsize=(8 * len(groups), 7), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for panel, (title, entries) in zip(panels, groups, strict=True):
        forms = list(dict.fromkeys(entry["form"] for entry in entries))
        for index, form in enumerate(forms):
            _draw_form(panel, [entry for entry in entries if entry["form"] == form], f"C{index}")
        _name_networks(panel, entries)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("{x:g}")
        panel.tick_params(axis="x", which="both", labelsize=7)
        panel.set_xlabel("latency measured here, ms (median; bars: quartiles)")
        panel.set_ylabel("ImageNet-1k top-1 as published, %")
        panel.set_title(title)
        panel.grid(alpha=0.3, which="both")
        panel.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.12), ncols=3)
    figure.suptitle("\n".join(textwrap.wrap(describe(report["machine"]), 100)), fontsize="small")
    figure.savefig(path, dpi=120)


def _draw_form(panel: Any, entries: list[dict[str, Any]], colour: str) -> None:
    for kind, style in (("ours", "o-"), ("peer", "s")):
        drawn = [entry for entry in entries if entry["kind"] == kind]
        if not drawn:
            continue
        drawn.sort(key=lambda entry: entry["published_top1"])
        medians = [entry["ms"]["median"] for entry in drawn]
        spread = [
            [entry["ms"]["median"] - entry["ms"]["low"] for entry in drawn],
            [entry["ms"]["high"] - entry["ms"]["median"] for entry in drawn],
        ]
        label = f"{'VanillaNet' if kind == 'ours' else 'peers'}, {drawn[0]['form']}"
        accuracies = [entry["published_top1"] for entry in drawn]
        panel.errorbar(
            medians, accuracies, xerr=spread, fmt=style, color=colour, label=label, markersize=5
        )


def _name_networks(panel: Any, entries: list[dict[str, Any]]) -> None:
    """Write each network's name once, beside its slowest form."""
    for name in dict.fromkeys(entry["network"] for entry in entries):
        forms = [entry for entry in entries if entry["network"] == name]
        point = (max(entry["ms"]["median"] for entry in forms), forms[0]["published_top1"])
        panel.annotate(name, point, xytext=(6, 4), textcoords="offset points", fontsize=7)
