"""Fuse a model and export it to ONNX.

A classifier gives logits, a segmenter logit maps, a detector the features of its backbone; with
--part detector the whole detector is exported through MMDeploy, if that is installed. The file is
run in ONNX Runtime and compared with PyTorch before it is written. The graph takes normalised
images; the file's metadata says how to normalise them.
"""

import json
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from rich.console import Console

from mmvanilla.apis.config import load_config
from mmvanilla.apis.images import find_images
from mmvanilla.apis.model import load_model
from mmvanilla.deploy.mmdeploy_export import export_detector
from mmvanilla.deploy.onnx_export import DEFAULT_TOLERANCE, EXPORTERS, export_onnx
from mmvanilla.deploy.onnx_module import PARTS
from mmvanilla.deploy.onnx_runtime import check_out
from mmvanilla.utils import cli

_COMPARED_IMAGES = 8
_SHAPE_HELP = "height and width in pixels to export with (default: 224 224)"


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file, or the name of one that `configs` lists")
    parser.add_argument("checkpoint", help="checkpoint file, or an address such as vanillanet://13")
    parser.add_argument("out", help=".onnx file to write")
    parser.add_argument(
        "--part",
        choices=(*PARTS, "detector"),
        help="default: the whole classifier or segmenter; for a detector its backbone",
    )
    parser.add_argument(
        "--images", help="--part detector: an image or folder with objects to compare on"
    )
    parser.add_argument(
        "--shape", nargs=2, type=int, default=(224, 224), metavar=("H", "W"), help=_SHAPE_HELP
    )
    parser.add_argument("--size", nargs=2, type=int, help=SUPPRESS)  # the old name of --shape
    parser.add_argument(
        "--fixed-size",
        action="store_true",
        help="accept only --shape; default: any height and width",
    )
    parser.add_argument(
        "--softmax", action="store_true", help="classifier: probabilities instead of logits"
    )
    parser.add_argument(
        "--full-size", action="store_true", help="segmenter: logits at the size of the input"
    )
    parser.add_argument(
        "--exporter", choices=EXPORTERS, default="torchscript", help="default: torchscript"
    )
    parser.add_argument(
        "--tolerance", type=float, default=DEFAULT_TOLERANCE, help="default: 1e-4, relative"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    cli.add_cfg_options(parser)
    return parser


def export_whole_detector(args: Namespace, console: Console) -> None:
    if not args.images:
        raise ValueError("--part detector needs --images; give images with objects to compare on")
    with console.status("loading") as status:
        report = export_detector(
            load_config(args.config, args.cfg_options),
            args.checkpoint,
            args.out,
            find_images(args.images, _COMPARED_IMAGES),
            overwrite=args.overwrite,
            progress=status.update,
        )
    print(f"{report.path}: whole detector, {report.size_bytes / 1e6:.1f} MB")
    print(f"outputs: {', '.join(report.output_names)}")
    print(
        f"of {report.compared} confident detections of PyTorch and ONNX Runtime {report.exact} "
        f"have an equal one on the other side, within {DEFAULT_TOLERANCE:g}"
    )
    print("normalisation is not inside; masks are those of the head, to be pasted into their boxes")


def export(args: Namespace) -> None:
    console = Console()
    if args.size is not None:
        print("warning: --size is deprecated; use --shape", file=sys.stderr)
        args.shape = args.size
    if args.part == "detector":
        export_whole_detector(args, console)
        return
    check_out(Path(args.out), args.overwrite, (args.config, args.checkpoint))
    with console.status("loading") as status:
        cfg = load_config(args.config, args.cfg_options)
        model, meta = load_model(cfg, args.checkpoint)
        metadata = {"config": Path(args.config).name}
        classes = (meta.get("dataset_meta") or {}).get("classes")
        if classes:
            metadata["classes"] = json.dumps(list(classes))
        report = export_onnx(
            model,
            args.out,
            size=tuple(args.shape),
            part=args.part,
            softmax=args.softmax,
            full_size=args.full_size,
            dynamic=not args.fixed_size,
            exporter=args.exporter,
            tolerance=args.tolerance,
            overwrite=args.overwrite,
            metadata=metadata,
            progress=status.update,
        )
    nodes = ", ".join(f"{count} {name}" for name, count in sorted(report.node_counts.items()))
    shapes = ", ".join("x".join(map(str, shape)) for shape in report.compared_shapes)
    print(f"{report.path}: {report.part}, {report.size_bytes / 1e6:.1f} MB")
    print(f"outputs: {', '.join(report.output_names)}")
    print(f"input: any batch, {'any height and width' if report.dynamic else 'one size only'}")
    print(f"nodes: {nodes}")
    print(f"differs from PyTorch by at most {report.max_difference:.1e} of each output's maximum,")
    print(f"on inputs of {shapes}")
    print("normalisation is not inside: see the file's metadata, entry preprocessing")


if __name__ == "__main__":
    cli.run(build_parser(), export)
