"""Draw what a model predicts and sees.

predict: predictions drawn into each image; OUT is a folder
cam: Grad-CAM of a classifier, beside a second one if --peer is given; OUT is a .png file
features: the backbone's outputs at each level, for the first image; OUT is a .png file
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from mmvanilla.apis.feature_pictures import Viewer, save_activation_sheet, save_feature_sheet
from mmvanilla.apis.images import check_image, find_images
from mmvanilla.apis.predictions import draw_predictions
from mmvanilla.checkpoints.writing import check_writable
from mmvanilla.utils import cli

KINDS = ("predict", "cam", "features")


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("config", help="config file, or the name of one that `configs` lists")
    parser.add_argument("checkpoint", help="checkpoint file, or an address such as vanillanet://13")
    parser.add_argument("images", help="an image, or a folder of images")
    parser.add_argument("out", help="the folder or .png file to write")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="largest number of images of a folder (default: all)"
    )
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument(
        "--score-thr",
        type=float,
        default=0.3,
        help="predict: lowest score of a detection that is drawn (default: 0.3)",
    )
    parser.add_argument(
        "--peer",
        nargs=2,
        metavar=("CONFIG", "CHECKPOINT"),
        help="cam: a classifier to compare with",
    )
    parser.add_argument("--layer", help="cam: the module to look at (default: the backbone's last)")
    parser.add_argument("--peer-layer", help="cam: the same for the peer")
    parser.add_argument("--category", type=int, help="cam: the class (default: the predicted one)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing pictures")
    return parser


def visualize(args: Namespace) -> None:
    images = find_images(args.images, args.limit)
    if args.kind == "predict":
        written = draw_predictions(
            args.config,
            args.checkpoint,
            images,
            args.out,
            args.device,
            args.score_thr,
            args.overwrite,
        )
        print(f"{len(written)} files in {args.out}")
        return
    out = Path(args.out)
    if out.suffix != ".png":
        raise ValueError(f"the output must be a .png file, found {out}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent} to write {out.name} into; make it first")
    sources = [(args.config, args.checkpoint)]
    if args.kind == "cam" and args.peer:
        sources.append(tuple(args.peer))
    shown = images if args.kind == "cam" else images[:1]
    check_writable([out], args.overwrite, [*shown, *sum(sources, ())])
    for image in shown:
        check_image(image)
    viewers = [
        Viewer.load(*source, device=args.device)
        for source in track(sources, description="loading", transient=True)
    ]
    if args.kind == "cam":
        layers = [args.layer, args.peer_layer]
        save_activation_sheet(viewers, shown, out, layers, args.category, args.overwrite)
    else:
        save_feature_sheet(viewers[0], shown[0], out, args.overwrite)
    print(f"written: {out}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), visualize, argv)


if __name__ == "__main__":
    sys.exit(main())
