"""Draw what a model predicts, or what its backbone gives.

predict: predictions drawn into each image; OUT is a folder
features: the mean of the channels of each level over the first image; OUT is a .png file
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from functools import partial

from mmvanilla.apis.visualize import draw_features, draw_predictions
from mmvanilla.deploy.runner import find_images
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("predict", "features"))
    parser.add_argument("config", help="config file, or the name of one that `configs` lists")
    parser.add_argument("checkpoint", help="checkpoint file, or an address such as vanillanet://13")
    parser.add_argument("images", help="an image, or a folder of images")
    parser.add_argument("out", help="the folder or .png file to write")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    text = "predict: lowest score of a detection that is drawn (default: 0.3)"
    parser.add_argument("--score-thr", type=float, default=0.3, help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace existing pictures")
    return parser


def visualize(args: Namespace) -> None:
    images = find_images([args.images])
    common = dict(device=args.device, overwrite=args.overwrite)
    if args.kind == "features":
        draw_features(args.config, args.checkpoint, images[0], args.out, **common)
        print(f"written: {args.out}")
        return
    written = draw_predictions(
        args.config, args.checkpoint, images, args.out, score_threshold=args.score_thr, **common
    )
    print(f"{len(written)} files in {args.out}")


main = partial(cli.run, build_parser, visualize)

if __name__ == "__main__":
    sys.exit(main())
