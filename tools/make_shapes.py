"""Draw the small data set of shapes in the layouts of COCO, ADE20K and ImageNet."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from mmvanilla.datasets import drawing_tool
from mmvanilla.datasets.shapes import make_shapes
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    return drawing_tool.build_parser(__doc__, make_shapes, "data/shapes")


def run(args: Namespace) -> None:
    drawing_tool.draw(args, make_shapes, "shapes")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
