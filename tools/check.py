"""Check a config before training.

The model is built without data and weights and runs one image. The check says whether levels,
strides, channels, classes, imports, learning rates, λ and data fit together; each fault comes with
its remedy.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from mmvanilla.apis.config import load_config
from mmvanilla.checks.config_check import check_config
from mmvanilla.checks.findings import FAULT, OK
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file, or the name of one that `configs` lists")
    parser.add_argument(
        "--shape",
        nargs="+",
        type=int,
        metavar=("H", "W"),
        help="height and width of the image in pixels (default: the size that the config trains "
        "with, and a large one)",
    )
    cli.add_cfg_options(parser)
    return parser


def check(args: Namespace) -> None:
    if args.shape is not None and (len(args.shape) > 2 or min(args.shape) < 1):
        raise ValueError(f"--shape takes a height and a width, at least 1, found {args.shape}")
    size = None if args.shape is None else (args.shape[0], args.shape[-1])
    findings = check_config(load_config(args.config, args.cfg_options), size)
    table = Table(title=args.config, title_justify="left")
    table.add_column("fits")
    table.add_column("found")
    for finding in findings:
        if finding.status == OK:
            table.add_row(finding.subject, finding.text)
    Console().print(table)
    wrong = [finding for finding in findings if finding.status != OK]
    for finding in wrong:
        print(f"{finding.status}: {finding.subject}: {finding}")
    faults = sum(finding.status == FAULT for finding in wrong)
    if faults:
        raise ValueError(
            f"{args.config}: {faults} fault{'s' * (faults > 1)}; correct the config as the lines "
            "above say"
        )


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), check, argv)


if __name__ == "__main__":
    sys.exit(main())
