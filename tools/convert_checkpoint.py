"""Convert a checkpoint of VanillaNet's authors.

Reads a classifier (training or deploy form) or a detector of MMDetection 2.x, checks every weight,
and prints what it found with the config line to use.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmvanilla.apis.config import load_config
from mmvanilla.apis.stored_config import store_config
from mmvanilla.checkpoints.authors_keys import KINDS
from mmvanilla.checkpoints.conversion import convert_and_write
from mmvanilla.utils import cli


def parse_arch(text: str | None) -> str | dict[str, Any] | None:
    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--arch is not valid JSON: {error}; found {text}") from error


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path, metavar="IN", help="the authors' file")
    parser.add_argument("output", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument(
        "--arch",
        help="the variant, if the weights do not determine it: a name such as 13-1.5x-ada, or JSON "
        'such as \'{"dims": [16, 32, 64], "strides": [2, 2]}\'; the weights are checked against it',
    )
    parser.add_argument(
        "--strides",
        type=int,
        nargs="+",
        metavar="S",
        help="stride of each block, for widths that were not published",
    )
    parser.add_argument(
        "--target",
        choices=KINDS,
        help="what to write (default: what the file is; 'backbone' drops everything else)",
    )
    parser.add_argument(
        "--in-channels",
        type=int,
        metavar="N",
        help="adapt the stem to images of N channels: 1 for gray, 6 for six bands (default: leave "
        "it as it is)",
    )
    parser.add_argument(
        "--config",
        help="config of the whole network, such as maskrcnn_vanillanet.py, to store in OUT: then "
        "the inferencers of MMDetection and MMSegmentation need OUT alone",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    return parser


def convert(args: Namespace) -> None:
    cfg = load_config(args.config) if args.config else None
    report = convert_and_write(
        args.input,
        args.output,
        parse_arch(args.arch),
        args.strides,
        args.target,
        args.overwrite,
        args.in_channels,
        complete=lambda converted: cfg and store_config(converted, cfg),
    )
    print(report.describe())


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), convert, argv)


if __name__ == "__main__":
    sys.exit(main())
