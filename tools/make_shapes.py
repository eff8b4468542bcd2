"""Draw the small data set of shapes in the layouts of COCO, ADE20K and ImageNet."""

import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace

from rich.progress import track

from mmvanilla.datasets.shapes import LAYOUTS, make_shapes
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("root", nargs="?", default="data/shapes", help="folder to write to")
    parser.add_argument(
        "--layouts", nargs="+", default=list(LAYOUTS), metavar="NAME", help="which layouts to make"
    )
    parser.add_argument("--num-train", type=int, default=1200, metavar="N", help="training images")
    parser.add_argument("--num-val", type=int, default=100, metavar="N", help="validation images")
    parser.add_argument(
        "--image-size", type=int, default=128, metavar="PX", help="height and width of an image"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace layouts made with other settings"
    )
    return parser


def main(args: Namespace) -> None:
    start = time.perf_counter()
    made = make_shapes(
        args.root,
        layouts=args.layouts,
        num_train=args.num_train,
        num_val=args.num_val,
        image_size=args.image_size,
        seed=args.seed,
        progress=lambda tasks: track(tasks, description="drawing shapes"),
        overwrite=args.overwrite,
    )
    for layout in LAYOUTS:
        if layout in made:
            print(
                f"{args.root}/{layout}: {args.num_train} training and {args.num_val} validation "
                f"images of {args.image_size}x{args.image_size}, seed {args.seed}"
            )
        elif layout in args.layouts:
            print(f"{args.root}/{layout}: already there, nothing to do")
    if made:
        print(f"made in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    cli.run(build_parser(), main)
