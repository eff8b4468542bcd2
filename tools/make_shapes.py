"""Draw the small data set of shapes in the layouts of COCO, ADE20K and ImageNet."""

import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace

from rich.progress import track

from mmvanilla.datasets.shapes import LAYOUTS, make_shapes
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    cli.add_drawing_options(
        parser, "data/shapes", LAYOUTS, num_train=1200, num_val=100, image_size=128
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
    cli.report_drawn(args, LAYOUTS, made)
    if made:
        print(f"made in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    cli.run(build_parser(), main)
