"""Draw what a model predicts into images, as PNG files."""

import sys
from argparse import ArgumentParser, Namespace
from functools import partial

from mmvanilla.apis.visualize import draw_predictions
from mmvanilla.deploy.runner import find_images
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["predict"], help="predictions")
    parser.add_argument("config", help="config file, or the name of one that `configs` lists")
    parser.add_argument("checkpoint", help="checkpoint file, or an address such as vanillanet://13")
    parser.add_argument("images", help="an image, or a folder of images")
    parser.add_argument("out", help="the folder to write to")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    text = "lowest score of a detection that is drawn (default: 0.3)"
    parser.add_argument("--score-thr", type=float, default=0.3, help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace existing pictures")
    return parser


def visualize(args: Namespace) -> None:
    images = find_images([args.images])
    written = draw_predictions(
        args.config,
        args.checkpoint,
        images,
        args.out,
        device=args.device,
        score_threshold=args.score_thr,
        overwrite=args.overwrite,
    )
    print(f"{len(written)} files in {args.out}")


main = partial(cli.run, build_parser, visualize)

if __name__ == "__main__":
    sys.exit(main())
