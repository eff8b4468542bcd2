"""Put garments of Fashion-MNIST into scenes, in the layouts of COCO and ADE20K."""

import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace

from rich.progress import track

from mmvanilla.datasets.fashion_mnist import FOLDERS
from mmvanilla.datasets.garments import LAYOUTS, make_garments
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    cli.add_drawing_options(
        parser, "data/garments", LAYOUTS, num_train=4000, num_val=300, image_size=96
    )
    parser.add_argument(
        "--source",
        metavar="FOLDER",
        help=f"folder of Fashion-MNIST's four files; without it, the first of {', '.join(FOLDERS)}",
    )
    return parser


def main(args: Namespace) -> None:
    start = time.perf_counter()
    made = make_garments(
        args.root,
        layouts=args.layouts,
        num_train=args.num_train,
        num_val=args.num_val,
        image_size=args.image_size,
        seed=args.seed,
        source=args.source,
        progress=lambda tasks: track(tasks, description="drawing garments"),
        overwrite=args.overwrite,
    )
    cli.report_drawn(args, LAYOUTS, made)
    if made:
        print(f"made in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    cli.run(build_parser(), main)
