"""Fuse a trained model for inference.

Takes any detector, segmenter or classifier with a VanillaNet (or convolution pairs) inside. Writes
the fused checkpoint to OUT (.pth) and a config that runs with it beside it (.py).
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from functools import partial

from rich.console import Console

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
        help="input size to compare at, once or more; MACs and latency are those of the first "
        "(default: a size that its config tests at)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=DEFAULT_TOLERANCE,
        help=f"largest relative difference allowed (default: {DEFAULT_TOLERANCE:g})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    cli.add_cfg_options(parser)
    return parser


def fuse(args: Namespace) -> None:
    console = Console(markup=False, emoji=False)
    with console.status("fusing"):
        report = fuse_checkpoint(
            args.config,
            args.checkpoint,
            args.out,
            cfg_options=args.cfg_options,
            sizes=[tuple(size) for size in args.sizes] if args.sizes else None,
            tolerance=args.tolerance,
            overwrite=args.overwrite,
        )
    show(report, console)


def show(report: FuseReport, console: Console) -> None:
    rows = (
        ("parameters, M", *(f"{form.complexity.params / 1e6:.3f}" for form in report.forms)),
        ("MACs, G", *(f"{form.complexity.macs / 1e9:.3f}" for form in report.forms)),
        ("latency, ms (median)", *(f"{form.latency_ms:.1f}" for form in report.forms)),
    )
    cli.show_table(f"{report.num_fused} layers fused", ("", "before", "after"), rows)
    console.print(f"MACs and latency: {report.measured}", highlight=False)
    console.print(f"largest relative difference: {report.max_difference:.1e}")
    console.print(report.compared, highlight=False, soft_wrap=True)
    console.print(
        f"wrote {report.config.with_suffix('.pth')}\n      {report.config}", soft_wrap=True
    )


main = partial(cli.run, build_parser, fuse)


if __name__ == "__main__":
    sys.exit(main())
