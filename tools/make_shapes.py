"""Draw the small data set of shapes in the layouts of COCO, ADE20K and ImageNet."""

from argparse import ArgumentParser, Namespace

from mmvanilla.datasets import drawing_tool
from mmvanilla.datasets.shapes import make_shapes
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    return drawing_tool.build_parser(__doc__, make_shapes, "data/shapes")


def main(args: Namespace) -> None:
    drawing_tool.draw(args, make_shapes, "shapes")


if __name__ == "__main__":
    cli.run(build_parser(), main)
