"""Put garments of Fashion-MNIST into scenes, in the layouts of COCO and ADE20K."""

import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence

from mmvanilla.utils import cli
from projects.toy_data.fashion_mnist import FOLDERS
from projects.toy_data.garments import LAYOUTS, make_garments


def build_parser() -> ArgumentParser:
    """Build the parser of the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("root", nargs="?", default="data/garments", help="folder to write to")
    parser.add_argument(
        "--layouts",
        nargs="+",
        default=LAYOUTS,
        choices=LAYOUTS,
        metavar="NAME",
        help="which layouts to make",
    )
    parser.add_argument("--num-train", type=int, default=4000, help="training images")
    parser.add_argument("--num-val", type=int, default=300, help="validation images")
    parser.add_argument("--image-size", type=int, default=96, help="height and width in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same images")
    parser.add_argument(
        "--source",
        metavar="FOLDER",
        help=f"folder of Fashion-MNIST's four files; without it, the first of {', '.join(FOLDERS)}",
    )
    return parser


def make(args: Namespace) -> None:
    """Make the data set, and say what was written."""
    numbers = (args.num_train, args.num_val, args.image_size, args.seed)
    made = make_garments(args.root, args.layouts, *numbers, args.source)
    for layout in args.layouts:
        print(f"{args.root}/{layout}: {'written' if layout in made else 'already there'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return cli.run(build_parser, make, argv)


if __name__ == "__main__":
    sys.exit(main())
