"""Fuse a model and export it to ONNX, OpenVINO, TorchScript or torch.export.

A classifier gives logits, a segmenter logit maps, a detector the features of its backbone (whole
detectors are exported by projects/mmdeploy, in a clone). The file is run in its own runtime and
compared with PyTorch before it appears. The graph takes normalised images; the file's metadata
says how to read and normalise them, and names the classes.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from functools import partial
from pathlib import Path

from rich.console import Console

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import load_model
from mmvanilla.checkpoints.writing import check_writable
from mmvanilla.deploy.exportable import PARTS
from mmvanilla.deploy.exporting import DEFAULT_TOLERANCE, export_model
from mmvanilla.deploy.formats import FORMATS, find_format
from mmvanilla.deploy.onnx_export import EXPORTERS
from mmvanilla.deploy.runner_copy import RUNNER_NAME, runner_files
from mmvanilla.deploy.runner_metadata import describe_for_runner, refusal
from mmvanilla.utils import cli


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
        "--shape",
        nargs=2,
        type=int,
        default=(224, 224),
        metavar=("H", "W"),
        help="height and width in pixels to export with (default: 224 224)",
    )
    parser.add_argument(
        "--fixed-size",
        action="store_true",
        help="accept only --shape; default: any height and width, where the format can",
    )
    parser.add_argument(
        "--softmax",
        action="store_true",
        help="classifier: the scores of its own predict instead of logits (softmax; sigmoid where "
        "a thing may have several labels)",
    )
    parser.add_argument(
        "--full-size", action="store_true", help="segmenter: logits at the size of the input"
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
        default=DEFAULT_TOLERANCE,
        help="largest difference from PyTorch, relative (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    cli.add_cfg_options(parser)
    return parser


def export(args: Namespace) -> None:
    target = find_format(args.out, args.format, args.exporter)
    if args.part == "detector":
        raise ValueError("whole detectors are exported by projects/mmdeploy, in a clone; see there")
    if args.with_runner and not target.has_runner:
        served = ", ".join(entry.name for entry in FORMATS.values() if entry.has_runner)
        raise ValueError(
            f"{RUNNER_NAME} serves {served}, not {target.name}; leave --with-runner out"
        )
    out = Path(args.out)
    files = [*target.files(out), *runner_files(out, args.with_runner)]
    check_writable(files, args.overwrite, (args.config, args.checkpoint))
    with Console().status("loading") as status:
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
            tolerance=args.tolerance,
            overwrite=args.overwrite,
            metadata={"config": Path(args.config).name, **described},
            with_runner=args.with_runner,
            progress=status.update,
        )
    size = sum(path.stat().st_size for path in target.files(out))
    shapes = ", ".join("x".join(map(str, shape)) for shape in report.compared_shapes)
    print(f"{out}: {report.part}, {size / 1e6:.1f} MB")
    print(f"outputs: {', '.join(report.output_names)}")
    print(f"weights equalised: {report.equalised}")
    print(f"input: any batch, {report.input_size} height and width")
    print(f"differs from PyTorch by at most {report.max_difference:.1e} of each output's maximum,")
    print(f"run by {target.runtime} on inputs of {shapes}")
    print("normalisation is not inside: see the file's metadata, entry preprocessing")
    refuses = refusal(described)
    if args.with_runner:
        print(f"beside it: {RUNNER_NAME}")
    if target.has_runner and report.part != "backbone" and refuses is not None:
        print(f"warning: {RUNNER_NAME} will refuse this file: {refuses}", file=sys.stderr)


main = partial(cli.run, build_parser, export)


if __name__ == "__main__":
    sys.exit(main())
