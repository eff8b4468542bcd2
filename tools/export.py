"""Fuse a model and export it to ONNX, OpenVINO, TorchScript or torch.export.

A classifier gives logits, a segmenter logit maps, a detector the features of its backbone; with
--part detector the whole detector is exported to ONNX through MMDeploy, if that is installed. The
file is run in its own runtime and compared with PyTorch before it appears. The graph takes
normalised images; the file's metadata says how to read and normalise them, and names the classes.
"""

import sys
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mmvanilla.apis.config import load_config
from mmvanilla.apis.images import find_images
from mmvanilla.apis.model import load_model
from mmvanilla.deploy.exportable import PARTS
from mmvanilla.deploy.exporting import RUNNER_NAME, check_out, export_model, runner_copies
from mmvanilla.deploy.formats import FORMATS, find_format
from mmvanilla.deploy.onnx_export import EXPORTERS
from mmvanilla.deploy.runner_metadata import describe_for_runner, refusal
from mmvanilla.utils import cli

_COMPARED_IMAGES = 8


def build_parser() -> ArgumentParser:
    suffixes = ", ".join(f"{entry.suffix}: {entry.name}" for entry in FORMATS.values())
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file, or the name of one that `configs` lists")
    parser.add_argument("checkpoint", help="checkpoint file, or an address such as vanillanet://13")
    parser.add_argument("out", help=f"file to write ({suffixes})")
    parser.add_argument("--format", choices=list(FORMATS), help="default: by the suffix of OUT")
    parser.add_argument(
        "--part",
        choices=(*PARTS, "detector"),
        help="default: the whole classifier or segmenter; for a detector its backbone",
    )
    parser.add_argument(
        "--images", help="--part detector: an image or folder with objects to compare on"
    )
    parser.add_argument(
        "--shape",
        nargs=2,
        type=int,
        default=(224, 224),
        metavar=("H", "W"),
        help="height and width in pixels to export with (default: 224 224)",
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
        "--fp16",
        action="store_true",
        help="onnx: compute in half precision, for GPUs; openvino: store weights in it",
    )
    parser.add_argument(
        "--with-runner",
        action="store_true",
        help=f"also write {RUNNER_NAME}, which uses the model without PyTorch (onnx, openvino)",
    )
    parser.add_argument(
        "--exporter",
        choices=EXPORTERS,
        help="onnx: the exporter of PyTorch (default: torchscript)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        help="largest difference from PyTorch, relative (default: 1e-4; with --fp16 1e-2)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    cli.add_cfg_options(parser)
    return parser


def export_whole_detector(args: Namespace, console: Console) -> None:
    if not args.images:
        raise ValueError("--part detector needs --images; give images with objects to compare on")
    with console.status("loading") as status:
        report = export_detector(  # noqa: F821
            load_config(args.config, args.cfg_options),
            args.checkpoint,
            args.out,
            find_images(args.images, _COMPARED_IMAGES),
            overwrite=args.overwrite,
            with_runner=args.with_runner,
            progress=status.update,
        )
    print(f"{report.path}: whole detector, {report.size_bytes / 1e6:.1f} MB")
    print(f"outputs: {', '.join(report.output_names)}")
    print(
        f"of {report.compared} confident detections of PyTorch and ONNX Runtime {report.exact} "
        f"have an equal one on the other side, within {report.tolerance:g}"
    )
    print("normalisation is not inside; masks are those of the head, to be pasted into their boxes")
    report_runner(args, report.runner_refuses)


def report_runner(args: Namespace, refuses: str | None) -> None:
    if args.with_runner:
        print(f"beside it: {RUNNER_NAME}")
    if refuses is not None:
        print(f"warning: {RUNNER_NAME} will refuse this file: {refuses}", file=sys.stderr)


def export(args: Namespace) -> None:
    console = Console()
    if args.size is not None:
        print("warning: --size is deprecated; use --shape", file=sys.stderr)
        args.shape = args.size
    target = find_format(args.out, args.format, args.exporter)
    if args.with_runner and not target.has_runner:
        served = ", ".join(entry.name for entry in FORMATS.values() if entry.has_runner)
        raise ValueError(
            f"{RUNNER_NAME} serves {served}, not {target.name}; leave --with-runner out"
        )
    if args.part == "detector":
        if target.name != "onnx":
            raise ValueError(
                f"MMDeploy exports whole detectors to onnx, not to {target.name}; take --format "
                "onnx, or another --part"
            )
        export_whole_detector(args, console)
        return
    out = Path(args.out)
    files = [*target.files(out), *runner_copies(out, args.with_runner)]
    check_out(out, target.suffix, args.overwrite, (args.config, args.checkpoint), files)
    with console.status("loading") as status:
        cfg = load_config(args.config, args.cfg_options)
        model, meta = load_model(cfg, args.checkpoint)
        described = describe_for_runner(model, cfg, meta, args.part, args.softmax)
        report = export_model(
            model,
            out,
            target,
            size=tuple(args.shape),
            part=args.part,
            softmax=args.softmax,
            full_size=args.full_size,
            dynamic=not args.fixed_size,
            fp16=args.fp16,
            tolerance=args.tolerance,
            overwrite=args.overwrite,
            metadata={"config": Path(args.config).name, **described},
            with_runner=args.with_runner,
            progress=status.update,
        )
    shapes = ", ".join("x".join(map(str, shape)) for shape in report.compared_shapes)
    print(f"{report.path}: {report.part}, {report.size_bytes / 1e6:.1f} MB")
    print(f"outputs: {', '.join(report.output_names)}")
    sizes = {True: f"{report.input_size} height and width", False: "one size only"}
    print(f"input: any batch, {sizes[report.dynamic]}")
    if report.node_counts:
        nodes = [f"{count} {name}" for name, count in sorted(report.node_counts.items())]
        print(f"nodes: {', '.join(nodes)}")
    print(f"differs from PyTorch by at most {report.max_difference:.1e} of each output's maximum,")
    print(f"run by {report.runtime} on inputs of {shapes}")
    print("normalisation is not inside: see the file's metadata, entry preprocessing")
    if target.has_runner and report.part != "backbone":
        report_runner(args, refusal(described))


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), export, argv)


if __name__ == "__main__":
    sys.exit(main())
