"""Time VanillaNets, a plain reference and peers against each other.

All networks of one setting are timed in turns in one process. Weights are random; accuracies are
the published ones. Writes benchmark.json, benchmark.md and, if classification was timed,
benchmark.png.
"""

import json
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mmvanilla.checkpoints.writing import check_writable, write_text
from mmvanilla.utils import cli
from projects.benchmark.networks import PEERS
from projects.benchmark.report import can_plot, make_tables, save_plot, to_markdown
from projects.benchmark.run import MODES, Plan, run_benchmark
from projects.benchmark.runtimes import DTYPES, RUNTIMES


def parse_old_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def build_parser() -> ArgumentParser:
    forms = "\n".join(f"  {name}: {runtime.meaning}" for name, runtime in RUNTIMES.items())
    parser = ArgumentParser(
        description=f"{__doc__}\nforms:\n{forms}", formatter_class=RawDescriptionHelpFormatter
    )
    plan = Plan()
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(plan.modes))
    parser.add_argument(
        "--archs", nargs="*", default=list(plan.archs), help="VanillaNets (default: 5 9 13)"
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        default=[],
        metavar="NAME",
        help=f"{', '.join(PEERS)}, or a name of MMPretrain's model zoo (default: none)",
    )
    parser.add_argument("--no-reference", action="store_true", help="leave the reference out")
    parser.add_argument(
        "--forms", nargs="+", choices=list(RUNTIMES), help="default: all that the device has"
    )
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(plan.dtypes))
    parser.add_argument("--batches", nargs="+", type=int, default=list(plan.batches), metavar="N")
    parser.add_argument(
        "--shape",
        nargs=2,
        type=int,
        action="append",
        metavar=("H", "W"),
        help="height and width for forward and train; may be repeated (default: 224 224)",
    )
    parser.add_argument(
        "--feature-shape",
        nargs=2,
        type=int,
        default=plan.feature_size,
        metavar=("H", "W"),
        help="height and width for features (default: 800 1333)",
    )
    # The old names of the two.
    parser.add_argument("--sizes", nargs="+", type=parse_old_size, help=SUPPRESS)
    parser.add_argument("--feature-size", type=parse_old_size, help=SUPPRESS)
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument(
        "--threads", type=int, default=0, help="number of threads on the CPU (default: torch's)"
    )
    parser.add_argument("--rounds", type=int, default=plan.rounds, help="default: 15")
    parser.add_argument("--warmup", type=int, default=plan.warmup, help="default: 2")
    parser.add_argument(
        "--profile", action="store_true", help="also list the operators that take the time"
    )
    parser.add_argument(
        "--channels-last",
        action="store_true",
        help="--modes train: also in the memory format channels_last, which is one of the forms of "
        "the other modes",
    )
    parser.add_argument(
        "--out",
        default="work_dirs/benchmark",
        help="folder to write (default: work_dirs/benchmark)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser


def make_plan(args: Namespace) -> Plan:
    if args.sizes or args.feature_size:
        print(
            "warning: --sizes and --feature-size are deprecated; use --shape and --feature-shape",
            file=sys.stderr,
        )
    shapes = args.shape or args.sizes or Plan().sizes
    forms = args.forms or [
        name for name, runtime in RUNTIMES.items() if not runtime.for_gpu or "cuda" in args.device
    ]
    return Plan(
        modes=tuple(args.modes),
        archs=tuple(args.archs),
        peers=tuple(args.peers),
        reference=not args.no_reference,
        forms=tuple(forms),
        dtypes=tuple(args.dtypes),
        batches=tuple(args.batches),
        sizes=tuple((height, width) for height, width in shapes),
        feature_size=tuple(args.feature_size or args.feature_shape),
        device=args.device,
        threads=args.threads,
        rounds=args.rounds,
        warmup=args.warmup,
        profile=args.profile,
        channels_last=args.channels_last,
    )


def benchmark(args: Namespace) -> None:
    plan = make_plan(args)
    plan.check()
    folder = Path(args.out)
    written = [folder / f"benchmark.{ending}" for ending in ("json", "md", "png")]
    check_writable(written, args.overwrite)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # in a file the tables may be as wide as they need
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # The bar is redrawn between runs only; automatic redrawing would disturb the measurements.
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("starting", total=None)

        def step(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total, refresh=True)

        report = run_benchmark(plan, step)
    console.print(make_tables(report))
    numbers, tables, plot = written
    write_text(json.dumps(report, indent=2) + "\n", numbers, args.overwrite)
    write_text(to_markdown(report), tables, args.overwrite)
    print(f"written: {numbers} and .md")
    if can_plot(report):
        save_plot(report, plot)
        print(f"written: {plot}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), benchmark, argv)


if __name__ == "__main__":
    sys.exit(main())
