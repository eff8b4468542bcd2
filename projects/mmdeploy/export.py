"""Export a whole detector to ONNX, non-maximum suppression included, through MMDeploy.

The file is run in ONNX Runtime on the given images, and compared with PyTorch, before it appears:
at least 95 % of the confident detections of each side must have an equal one on the other side.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from functools import partial

from rich.console import Console

from mmvanilla.apis.config import load_config
from mmvanilla.deploy.runner import find_images
from mmvanilla.utils import cli
from projects.mmdeploy.mmdeploy_export import export_detector

_COMPARED_IMAGES = 8


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file, or the name of one that `configs` lists")
    parser.add_argument("checkpoint", help="checkpoint file, or an address such as vanillanet://13")
    parser.add_argument("out", help="the .onnx file to write")
    parser.add_argument("images", help="an image or folder with objects to compare on")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    cli.add_cfg_options(parser)
    return parser


def export(args: Namespace) -> None:
    with Console().status("loading") as status:
        report = export_detector(
            load_config(args.config, args.cfg_options),
            args.checkpoint,
            args.out,
            find_images([args.images])[:_COMPARED_IMAGES],
            overwrite=args.overwrite,
            progress=status.update,
        )
    print(f"{report.path}: whole detector, {report.size_bytes / 1e6:.1f} MB")
    print(f"outputs: {', '.join(report.output_names)}")
    print(
        f"of {report.compared} confident detections of PyTorch and ONNX Runtime {report.exact} "
        f"have an equal one on the other side, within {report.tolerance:g}"
    )
    print("normalisation is not inside; masks are those of the head, to be pasted into their boxes")
    if report.runner_refuses is not None:
        print(f"warning: detector_runner will refuse this file: {report.runner_refuses}")


main = partial(cli.run, build_parser, export)


if __name__ == "__main__":
    sys.exit(main())
