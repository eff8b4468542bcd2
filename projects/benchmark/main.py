"""Time VanillaNets, a plain reference and peers against each other.

All networks of one setting are timed in turns in one process. Weights are random; accuracies are
the published ones. Writes benchmark.json, benchmark.md and, if classification was timed,
benchmark.png.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from mmengine.logging import MMLogger

from mmvanilla.checkpoints.writing import check_writable, write_text
from mmvanilla.utils import cli
from projects.benchmark.measure import MODES, Plan, run_benchmark
from projects.benchmark.networks import PEERS
from projects.benchmark.report import save_plot, to_markdown
from projects.benchmark.runtimes import DTYPES, FORMS, forms_of


def build_parser() -> ArgumentParser:
    """Build the parser of the command line."""
    meanings = "\n".join(f"  {name}: {meaning}" for name, meaning in FORMS.items())
    parser = ArgumentParser(
        description=f"{__doc__}\nforms:\n{meanings}", formatter_class=RawDescriptionHelpFormatter
    )
    add, plan = parser.add_argument, Plan()
    add("--modes", nargs="+", choices=MODES, default=plan.modes)
    add("--archs", nargs="*", default=plan.archs, help="VanillaNets (default: 5 9 13)")
    add("--peers", nargs="*", choices=list(PEERS), default=plan.peers, metavar="NAME")
    add("--no-reference", action="store_true", help="leave the reference out")
    add("--forms", nargs="+", choices=list(FORMS), help="default: all that the device has")
    add("--dtypes", nargs="+", choices=list(DTYPES), default=plan.dtypes)
    add("--batches", nargs="+", type=int, default=plan.batches, metavar="N")
    add("--size", nargs=2, type=int, default=plan.size, metavar=("H", "W"), help="of the images")
    add(
        "--feature-size",
        nargs=2,
        type=int,
        default=plan.feature_size,
        metavar=("H", "W"),
        help="of the images in the mode features (default: 800 1333)",
    )
    add("--device", default=plan.device, help="default: cpu")
    add("--threads", type=int, default=0, help="threads on the CPU (default: torch's)")
    add("--rounds", type=int, default=plan.rounds, help="default: 15")
    add("--warmup", type=int, default=plan.warmup, help="default: 2")
    add("--width-mult", type=float, default=plan.width_mult, help="to try it with narrow networks")
    add("--out", default="work_dirs/benchmark", help="folder to write (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace existing files")
    return parser


def benchmark(args: Namespace) -> None:
    """Measure, and write the report."""
    numbers, tables, plot = (Path(args.out, f"benchmark.{end}") for end in ("json", "md", "png"))
    Path(args.out).mkdir(parents=True, exist_ok=True)
    check_writable([numbers, tables, plot], args.overwrite)
    MMLogger.get_instance("benchmark", log_level="WARNING")  # it tells of every initial weight
    if args.threads:
        torch.set_num_threads(args.threads)
    given = {**vars(args), "reference": not args.no_reference}
    given["forms"] = args.forms or forms_of(torch.device(args.device))
    given = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    report = run_benchmark(Plan(**{field.name: given[field.name] for field in fields(Plan)}))
    text = to_markdown(report)
    print(f"\n{text}")
    write_text(json.dumps(report, indent=2) + "\n", numbers, args.overwrite)
    write_text(text, tables, args.overwrite)
    written = [numbers, tables, *([plot] if save_plot(report, plot) else [])]
    print(f"written: {', '.join(map(str, written))}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return cli.run(build_parser, benchmark, argv)


if __name__ == "__main__":
    sys.exit(main())
