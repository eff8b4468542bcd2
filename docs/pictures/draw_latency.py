"""Draw accuracy against latency, for the README: python docs/pictures/draw_latency.py [OUT.png].

The figures are those of docs/benchmarks.md, section "Beside other networks", which names the
command that measured the latencies; the accuracies were published by the networks' authors.
"""

import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

HERE = Path(__file__).parent
SOURCE = HERE.parent / "benchmarks.md"
SECTION = "## Beside other networks"
ACCURACY = "top-1 %, published"
FORMS = {"onnxruntime": "ONNX Runtime, fp32", "int8": "ONNX Runtime, int8"}
OURS, PEERS, INK, FAINT = "#2f6fb5", "#8b95a1", "#1d2733", "#66727f"


def read_table(text: str) -> dict[str, dict[str, float]]:
    """Read the table of the section: for each network its figures, by the name of the column.

    Args:
        text: The page, in Markdown.
    """
    section = text.split(SECTION, 1)[1]
    rows = [
        [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\|.*\|$", section.split("\n## ")[0], flags=re.MULTILINE)
    ]
    columns, _, *networks = rows
    return {
        row[0]: {
            name: float(cell)
            for name, cell in zip(columns[1:], row[1:], strict=True)
            if re.fullmatch(r"[\d.]+", cell)
        }
        for row in networks
    }


def draw_panel(axes: Axes, table: dict[str, dict[str, float]], form: str) -> None:
    """Draw all networks in one form: VanillaNet as a line, the others as squares."""
    known = {name: row for name, row in table.items() if form in row}
    ours = [row for name, row in known.items() if name.startswith("VanillaNet")]
    axes.plot(
        [row[form] for row in ours],
        [row[ACCURACY] for row in ours],
        "o-",
        color=OURS,
        linewidth=2,
        markersize=8,
        zorder=3,
    )
    for name, row in known.items():
        is_ours = name.startswith("VanillaNet")
        if not is_ours:
            axes.plot(row[form], row[ACCURACY], "s", color=PEERS, markersize=8, zorder=2)
        axes.annotate(
            name,
            (row[form], row[ACCURACY]),
            xytext=(10, -5) if is_ours else (0, 9),
            textcoords="offset points",
            ha="left" if is_ours else "center",
            fontsize=11,
            color=OURS if is_ours else FAINT,
            weight="bold" if is_ours else "normal",
            path_effects=[withStroke(linewidth=3, foreground="white")],
            zorder=4,
        )
    axes.set_title(FORMS[form], color=INK, fontsize=13, loc="left")
    axes.set_xlabel("ms for one 224×224 image on two CPU cores, measured", color=INK, fontsize=11)
    axes.set_xlim(0, 1.36 * max(row[form] for row in known.values()))
    axes.set_ylim(69, 83.2)
    axes.grid(color="#e6ebf0")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=FAINT)


def draw(out: Path) -> None:
    """Write the picture."""
    table = read_table(SOURCE.read_text(encoding="utf-8"))
    plt.rcParams["font.family"] = "DejaVu Sans"
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True, layout="constrained")
    for axes, form in zip(panels, FORMS, strict=True):
        draw_panel(axes, table, form)
    panels[0].set_ylabel("ImageNet top-1 %, published (fp32)", color=INK, fontsize=11)
    figure.savefig(out, dpi=130, facecolor="white")


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "latency.png")
