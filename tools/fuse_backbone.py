"""Fuse a trained model for inference.

Takes any detector, segmenter or classifier with a VanillaNet (or convolution pairs) inside. Writes
the fused checkpoint to OUT (.pth) and a config that runs with it beside it (.py).
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from mmvanilla.deploy.fuse_checkpoint import DEFAULT_TOLERANCE, FuseReport, fuse_checkpoint
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config that the model was trained with: file or name")
    parser.add_argument("checkpoint", help="its trained weights")
    parser.add_argument("out", help="the fused checkpoint to write (.pth)")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs=2,
        action="append",
        metavar=("H", "W"),
        help="input size to compare at, once or more (default: that of its tests, and an odd one)",
    )
    parser.add_argument(
        "--shape",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="input size for MACs and latency (default: the first that is compared)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=DEFAULT_TOLERANCE,
        help=f"largest relative difference allowed (default: {DEFAULT_TOLERANCE:g})",
    )
    parser.add_argument(
        "--force", action="store_true", help="fuse also before the end of deep training"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    cli.add_cfg_options(parser)
    return parser


def fuse(args: Namespace) -> None:
    console = Console()
    with console.status("starting") as status:
        report = fuse_checkpoint(
            args.config,
            args.checkpoint,
            args.out,
            cfg_options=args.cfg_options,
            sizes=[tuple(size) for size in args.sizes] if args.sizes else None,
            measured_size=tuple(args.shape) if args.shape else None,
            tolerance=args.tolerance,
            force=args.force,
            overwrite=args.overwrite,
            progress=status.update,
        )
    show(report, console)


def show(report: FuseReport, console: Console) -> None:
    table = Table(title=f"{report.num_fused} layers fused")
    for column in ("", "before", "after"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row(
        "parameters, M", *(f"{form.complexity.params / 1e6:.3f}" for form in report.forms)
    )
    table.add_row("MACs, G", *(f"{form.complexity.macs / 1e9:.3f}" for form in report.forms))
    table.add_row("latency, ms (median)", *(f"{form.latency_ms:.1f}" for form in report.forms))
    console.print(table)
    console.print(f"MACs and latency: {report.measured}", highlight=False)
    console.print(f"largest relative difference: {report.max_difference:.1e}")
    console.print(report.compared, highlight=False, soft_wrap=True)
    console.print(f"wrote {report.checkpoint}\n      {report.config}", soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), fuse, argv)


if __name__ == "__main__":
    sys.exit(main())
