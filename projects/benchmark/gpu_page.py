"""Write the page docs/benchmarks_gpu.md from the results of mmvanilla gpu_report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from projects.benchmark.gpu_plan import QUESTIONS
from projects.benchmark.gpu_tables import TABLES, Cell, forward_table

#: The first line of the page, by which the tool knows that it may write it again.
MARK = "<!-- Written by mmvanilla gpu_report; it will be written again. -->\n"

# Larger differences from fp32 are pointed out. Weights are random, so they say nothing of accuracy.
_TOLERANCE = {"fp32": 1e-3, "tf32": 5e-2, "fp16": 5e-2, "bf16": 3e-1}

_METHOD = """\
Cells of one table with the same precision and batch are timed in turns in one process. Before each
run the L2 cache is overwritten and the GPU is idle. The time is that of the host's clock until the
GPU has finished, so it has Python and the launches in it, as a caller would see it; *on the GPU* is
the time between CUDA events around the same run. Each figure is a median, with the quartiles in
brackets, after at least three runs of warm-up; cuDNN chooses its algorithms by trying them
(`cudnn.benchmark`). *fp32* is without TF32, *tf32* with it, *fp16* and *bf16* have weights and
images of that type. Weights are random, batch norms are folded into the convolutions of the peers
too, and published figures are marked as such. The *reference* is
`mmvanilla/benchmark/reference.py`, the authors' network written down plainly, in NCHW."""

_NEVER = """\
This command does not measure: TensorRT, several GPUs, data loading, whole training runs, the
accuracy of any precision (weights are random), and training with an optimiser (a step here is
forward, cross entropy and backward)."""


def render(results: dict[str, Any], planned: Sequence[str]) -> str:
    """Write the page.

    Args:
        results: Results of :func:`projects.benchmark.gpu_report.run_report`.
        planned: Names of all cells of the plan, of which some may not have been measured.

    Returns:
        The page in Markdown.
    """
    rows = [Cell(name, results["cells"].get(name)) for name in planned]
    parts = [MARK + "# Benchmarks on a GPU", *_introduction(results)]
    for question, title in QUESTIONS.items():
        own = [row for row in rows if row.question == question]
        if not own:
            continue
        parts.append(f"## {title}")
        if any(row.ms for row in own):
            parts.append(TABLES.get(question, forward_table)(own))
        else:
            parts.append("Nothing of this was measured; the reasons are below.")
    parts += ["## Outputs", _outputs(rows), "## Not measured", *_not_measured(rows), _NEVER]
    return "\n\n".join(parts) + "\n"


def _introduction(results: dict[str, Any]) -> list[str]:
    machine = results.get("machine")
    runs = [f"    {run['command']}        # {run['date']}" for run in results["runs"]]
    parts = ["\n".join(runs)] if runs else []
    if machine is None:
        return [*parts, "Nothing was measured yet.", _tests(results)]
    if "gpu" not in machine:
        parts.append("**A trial without a GPU: no figure here is one of a GPU.**")
    if results["small"]:
        parts.append("**A trial with narrow networks and small images: no figure here counts.**")
    return [*parts, _machine(machine, results["cells"].values()), _METHOD, _tests(results)]


def _machine(machine: dict[str, Any], entries: Iterable[dict[str, Any]]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"- CPU: {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads",
        f"- Versions: {versions}",
    ]
    details = machine.get("gpu_details", {})
    if details:
        known = ", ".join(
            f"{key.replace('_', ' ')} {value}"
            for key, value in details.items()
            if key != "name" and value is not None
        )
        lines.insert(0, f"- GPU: {details['name']}, {known}")
        lines.append(f"- Clocks: {_clocks(entries)}")
    defaults = ", ".join(
        f"{'on' if allowed else 'off'} in {where}"
        for where, allowed in machine["default_tf32"].items()
    )
    lines.append(f"- TF32 as torch has it by default: {defaults}; each table says what was set")
    peaks = machine.get("peak_gflops")
    if peaks:
        found = ", ".join(f"{value / 1e3:.3g} in {name}" for name, value in peaks.items())
        lines.append(f"- A large dense layer, TFLOP/s: {found}")
    return "\n".join(lines)


def _clocks(entries: Iterable[dict[str, Any]]) -> str:
    states = [state for entry in entries for state in entry.get("state", {}).values() if state]
    parts = []
    for key, words in (("sm_mhz", "SM {} MHz"), ("memory_mhz", "memory {} MHz")):
        seen = [state[key] for state in states if isinstance(state.get(key), float)]
        if seen:
            parts.append(words.format(f"{min(seen):g} to {max(seen):g}"))
    if not parts:
        return "nvidia-smi could not be read"
    return ", ".join(parts) + ", read before and after each group; none was set by us"


def _tests(results: dict[str, Any]) -> str:
    tests = results.get("tests")
    if tests is None:
        return "Tests marked `gpu`: not run."
    if "not_run" in tests:
        return f"Tests marked `gpu`: {tests['not_run']}."
    lines = [
        f"Tests marked `gpu` (`pytest -m gpu`): {tests['passed']} passed, {tests['failed']} "
        f"failed, {tests['skipped']} skipped."
    ]
    for what in ("failures", "skips"):
        lines += [f"- {what[:-1]}: `{name}`: {_plain(why)}" for name, why in tests[what].items()]
    return "\n\n".join([lines[0], "\n".join(lines[1:])]).strip()


def _outputs(cells: list[Cell]) -> str:
    """Tell how far the outputs are from those in fp32, and which ones too far."""
    differences: dict[str, float] = {}
    suspicious = []
    for cell in cells:
        found = cell.entry.get("difference")
        if found is not None:
            differences[cell.precision] = max(found, differences.get(cell.precision, 0.0))
            if not found <= _TOLERANCE[cell.precision]:  # `not`, so that NaN is one, too
                suspicious.append(f"- `{cell.name}`: {found:.2g}")
        elif cell.entry.get("finite") is False:
            suspicious.append(f"- `{cell.name}`: a gradient is not finite")
    told = ", ".join(f"{value:.2g} in {name}" for name, value in differences.items())
    lines = [
        "The outputs of every form were compared with those of the fused network in fp32 on the "
        "same device. Largest difference, relative to the largest value: "
        f"{told or 'none measured'}."
    ]
    if suspicious:
        lines += ["**Do not trust these before it is known why:**", "\n".join(suspicious)]
    return "\n\n".join(lines)


def _not_measured(cells: list[Cell]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        if not cell.is_known:
            reasons.setdefault("the time was up before its turn", []).append(cell.name)
        elif "not_measured" in cell.entry:
            reasons.setdefault(_plain(cell.entry["not_measured"]), []).append(cell.name)
    if not reasons:
        return ["Every cell of the plan was measured."]
    return [
        "\n".join(
            f"- {reason}: {', '.join(f'`{name}`' for name in names)}"
            for reason, names in reasons.items()
        )
    ]


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("<", "(").replace(">", ")").replace("`", "'")
