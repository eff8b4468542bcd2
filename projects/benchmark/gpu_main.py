"""Test and benchmark on a GPU, and write docs/benchmarks_gpu.md.

Runs the tests marked gpu, then the plan, the most important cells first, while there is time: fp32,
TF32, fp16, bf16, channels_last, CUDA graphs, torch.compile, training with and without AMP, against
the plain reference and the peers. What was measured is kept after every cell, and the same command
goes on where it was stopped. --minutes 0 only writes the page again. To try it without a GPU:
--device cpu --small.
"""

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from mmvanilla.utils import cli
from mmvanilla.utils.paths import tool_command
from projects.benchmark.gpu_report import Settings, run_report


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__)
    settings = Settings()
    parser.add_argument("--minutes", type=float, default=settings.minutes, help="default: 30")
    parser.add_argument("--device", default=settings.device, help="default: cuda")
    parser.add_argument(
        "--small", action="store_true", help="a trial with narrow networks and small images"
    )
    parser.add_argument("--no-tests", action="store_true", help="leave the GPU tests out")
    parser.add_argument("--retry", action="store_true", help="measure what failed again")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument(
        "--patience",
        type=float,
        default=settings.patience,
        help="seconds for a cell (default: 300)",
    )
    parser.add_argument("--out", help="folder for results and log (default: work_dirs/gpu_report)")
    parser.add_argument(
        "--page",
        help="page to write (default: docs/benchmarks_gpu.md; for a trial in the folder of the "
        "results)",
    )
    return parser


def report(args: Namespace) -> None:
    folder = Path(args.out or f"work_dirs/gpu_report{'_small' if args.small else ''}")
    page = Path(args.page or (folder if args.small else Path("docs")) / "benchmarks_gpu.md")
    settings = Settings(
        device=args.device,
        small=args.small,
        minutes=args.minutes,
        tests=not args.no_tests,
        retry=args.retry,
        patience=args.patience,
    )
    settings.check()
    results_path = folder / "results.json"
    folder.mkdir(parents=True, exist_ok=True)
    if args.fresh:
        results_path.unlink(missing_ok=True)

    def step(what: str, done: int, total: int) -> None:
        print(f"[{done}/{total}] {what}", flush=True)

    command = f"{tool_command('gpu_report')} {shlex.join(sys.argv[1:])}".rstrip()
    results = run_report(settings, results_path, page, command, step)
    measured = sum("ms" in entry for entry in results["cells"].values())
    print(f"{measured} cells measured, {len(results['cells']) - measured} could not be")
    print(f"written: {results_path} and {page}")
    tests = results.get("tests", {})
    if tests.get("failed"):
        raise RuntimeError(
            f"{tests['failed']} of the GPU tests failed: {', '.join(tests['failures'])}; read "
            f"{results_path.with_suffix('.log')}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), report, argv)


if __name__ == "__main__":
    sys.exit(main())
