"""Put garments of Fashion-MNIST into scenes, in the layouts of COCO and ADE20K."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from mmvanilla.datasets import drawing_tool
from mmvanilla.datasets.fashion_mnist import FOLDERS
from mmvanilla.datasets.garments import make_garments
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = drawing_tool.build_parser(__doc__, make_garments, "data/garments")
    parser.add_argument(
        "--source",
        metavar="FOLDER",
        help=f"folder of Fashion-MNIST's four files; without it, the first of {', '.join(FOLDERS)}",
    )
    return parser


def run(args: Namespace) -> None:
    drawing_tool.draw(args, make_garments, "garments")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
