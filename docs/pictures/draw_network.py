"""Draw VanillaNet in both forms, for the README: python docs/pictures/draw_network.py [OUT.png]."""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

OUT = Path(__file__).parent / "network.png"

INK, FAINT = "#1d2733", "#66727f"
CONV, FADING, ACT, POOL, MERGED = "#2f6fb5", "#e8872b", "#3a9a6b", "#8b95a1", "#17477f"
# From the left edge of each column, in the units of the picture.
STEM, BLOCK, HEAD = 2.0, 8.1, 16.2
TRAINING, DEPLOY = 5.0, 1.75  # heights of the two rows


def box(axes: Axes, x: float, y: float, width: float, text: str, colour: str) -> None:
    """Draw a layer as a rounded box whose middle is at the height y."""
    height = 1.15
    axes.add_patch(
        FancyBboxPatch(
            (x, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.16",
            facecolor=colour,
            edgecolor="none",
            zorder=3,
        )
    )
    axes.text(
        x + width / 2, y, text, color="white", ha="center", va="center", fontsize=11.5, zorder=4
    )


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **style) -> None:
    """Draw an arrow from one point to another."""
    options = dict(arrowstyle="-|>", mutation_scale=13, linewidth=1.5, color=FAINT, zorder=2)
    axes.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **{**options, **style}))


def frame(axes: Axes, x: float, y: float) -> None:
    """Draw the dashed frame around a pair, which merges."""
    axes.add_patch(
        FancyBboxPatch(
            (x, y - 0.85),
            4.0,
            1.7,
            boxstyle="round,pad=0,rounding_size=0.25",
            facecolor="#f5f8fb",
            edgecolor="#a9b8c8",
            linestyle=(0, (4, 3)),
            linewidth=1.3,
            zorder=1,
        )
    )


def draw_training_row(axes: Axes) -> None:
    """Draw the form that is trained: pairs of convolutions with φλ between them."""
    y = TRAINING
    for x, first in ((STEM, "4×4\nstride 4"), (BLOCK, "1×1"), (HEAD, "1×1")):
        frame(axes, x - 0.2, y)
        box(axes, x, y, 1.3, first, CONV)
        box(axes, x + 1.45, y, 0.7, "$φ_λ$", FADING)
        box(axes, x + 2.3, y, 1.3, "1×1", CONV)
    for start, end, label in (
        (STEM - 0.2, STEM + 5.1, "stem"),
        (BLOCK - 0.2, BLOCK + 6.25, "block, 3 to 11 times"),
        (HEAD - 0.2, HEAD + 3.8, "classifier"),
    ):
        axes.plot([start, end], [y + 1.15] * 2, color="#c3ced9", linewidth=1.6, zorder=1)
        axes.text(
            (start + end) / 2, y + 1.5, label, color=INK, ha="center", va="center", fontsize=12.5
        )
    draw_shared_layers(axes, y)


def draw_deploy_row(axes: Axes) -> None:
    """Draw the form for inference: one convolution instead of each pair."""
    y = DEPLOY
    for x, name in ((STEM, "4×4\nstride 4"), (BLOCK, "1×1"), (HEAD, "1×1")):
        box(axes, x + 1.05, y, 1.5, name, MERGED)
        arrow(axes, (x + 1.8, TRAINING - 0.95), (x + 1.8, y + 0.72), color=FADING, linewidth=2.4)
    draw_shared_layers(axes, y)


def draw_shared_layers(axes: Axes, y: float) -> None:
    """Draw what both forms have: pooling, activations, and the arrows between the parts."""
    box(axes, BLOCK + 4.1, y, 1.0, "max\npool", POOL)
    box(axes, STEM + 4.1, y, 1.0, "series\nact.", ACT)
    box(axes, BLOCK + 5.25, y, 1.0, "series\nact.", ACT)
    box(axes, BLOCK + 6.65, y, 0.95, "mean", POOL)
    training = y == TRAINING
    left, right = (0.2, 3.8) if training else (-1.05, 2.55)
    for start, end in (
        (1.35, STEM - left),
        (STEM + right, STEM + 4.1),
        (STEM + 5.1, BLOCK - left),
        (BLOCK + right, BLOCK + 4.1),
        (BLOCK + 5.1, BLOCK + 5.25),
        (BLOCK + 6.25, BLOCK + 6.65),
        (BLOCK + 7.6, HEAD - left),
        (HEAD + right, 20.75),
    ):
        arrow(axes, (start, y), (end, y), arrowstyle="-|>" if end - start > 0.2 else "-")
    axes.text(0.75, y, "image", color=INK, ha="center", va="center", fontsize=12)
    axes.text(21.4, y, "classes", color=INK, ha="center", va="center", fontsize=12)


def draw_fading_relu(figure: plt.Figure) -> None:
    """Plot φλ from a ReLU (λ = 0) to the identity (λ = 1)."""
    axes = figure.add_axes((0.702, 0.325, 0.08, 0.16))
    x = np.linspace(-1, 1, 3)
    for slope, alpha in ((0.0, 0.35), (0.5, 0.6), (1.0, 1.0)):
        axes.plot(x, np.where(x < 0, slope * x, x), color=FADING, alpha=alpha, linewidth=2.2)
    for text, height in (("$λ=0$", 0.0), ("$λ=½$", -0.5), ("$λ=1$", -1.0)):
        axes.text(-1.08, height, text, color=INK, ha="right", va="center", fontsize=10)
    axes.axhline(0, color="#d4dbe2", linewidth=1, zorder=0)
    axes.axvline(0, color="#d4dbe2", linewidth=1, zorder=0)
    axes.set_axis_off()


def draw(out: Path) -> None:
    """Write the picture."""
    plt.rcParams["font.family"] = "DejaVu Sans"
    plt.rcParams["mathtext.fontset"] = "dejavusans"
    figure = plt.figure(figsize=(15, 5.7))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.1, 22.3)
    axes.set_ylim(-0.15, 8.2)
    axes.set_axis_off()
    for y, title, text in (
        (TRAINING + 2.45, "Trained deep", "every convolution is a pair, with $φ_λ$ in between"),
        (DEPLOY - 1.3, "Run shallow", "every pair is one convolution: the same outputs"),
    ):
        axes.text(0.25, y, title, color=INK, fontsize=16, weight="bold", va="center")
        axes.text(3.45, y, text, color=FAINT, fontsize=13, va="center")
    axes.text(
        STEM + 2.2, 3.25, "λ = 1: merge", color=FADING, fontsize=13, weight="bold", va="center"
    )
    axes.text(
        BLOCK + 2.2,
        3.25,
        "λ goes from 0 to 1 while training:\n$φ_λ$ from a ReLU to nothing",
        color=INK,
        fontsize=12,
        va="center",
    )
    draw_training_row(axes)
    draw_deploy_row(axes)
    draw_fading_relu(figure)
    figure.savefig(out, dpi=130, facecolor="white")


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
