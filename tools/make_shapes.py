"""Draw the small data set of shapes in the layouts of COCO, ADE20K and ImageNet."""

import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from functools import partial

from mmvanilla.datasets.shapes import LAYOUTS, make_shapes
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("root", nargs="?", default="data/shapes", help="folder to write to")
    text = "which layouts to make"
    parser.add_argument("--layouts", nargs="+", default=LAYOUTS, choices=LAYOUTS, help=text)
    parser.add_argument("--num-train", type=int, default=1200, help="training images")
    parser.add_argument("--num-val", type=int, default=100, help="validation images")
    parser.add_argument("--image-size", type=int, default=128, help="height and width in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same images")
    return parser


def make(args: Namespace) -> None:
    numbers = (args.num_train, args.num_val, args.image_size, args.seed)
    made = make_shapes(args.root, args.layouts, *numbers)
    for layout in args.layouts:
        print(f"{args.root}/{layout}: {'written' if layout in made else 'already there'}")


main = partial(cli.run, build_parser, make)

if __name__ == "__main__":
    sys.exit(main())
