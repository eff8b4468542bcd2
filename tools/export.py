"""Fuse a model and export it to ONNX, OpenVINO, torch's or a phone's formats.

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
from mmvanilla.checkpoints.writing import check_writable, write_text
from mmvanilla.deploy.exportable import PARTS
from mmvanilla.deploy.exporting import DEFAULT_TOLERANCE, export_model
from mmvanilla.deploy.formats import FORMATS, find_format
from mmvanilla.deploy.runner_copy import RUNNER_NAME, has_runner, runner_text
from mmvanilla.deploy.runner_metadata import describe_for_runner, refusal
from mmvanilla.deploy.runner_runtimes import RUNTIMES
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    suffixes = ", ".join(f"{entry.suffix}: {entry.name}" for entry in FORMATS.values())
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file, or the name of one that `configs` lists")
    parser.add_argument("checkpoint", help="checkpoint file, or an address such as vanillanet://13")
    parser.add_argument("out", help=f"file to write ({suffixes})")
    parser.add_argument(
        "--part",
        choices=PARTS,
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
        "--with-runner",
        action="store_true",
        help=f"also write {RUNNER_NAME}, which uses the model without PyTorch",
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
    target = find_format(args.out)
    out = Path(args.out).expanduser()
    if args.with_runner and target.suffix not in RUNTIMES:
        raise ValueError(
            f"{RUNNER_NAME} runs {', '.join(RUNTIMES)}, not {out}; leave --with-runner out"
        )
    runner = out.parent / RUNNER_NAME
    writes_runner = args.with_runner and not has_runner(out.parent)
    files = [*target.files(out), *([runner] if writes_runner else [])]
    check_writable(files, args.overwrite, (args.config, args.checkpoint))
    with Console().status("exporting"):
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
            dynamic=not args.fixed_size,
            tolerance=args.tolerance,
            overwrite=args.overwrite,
            metadata={"config": Path(args.config).name, **described},
        )
    if writes_runner:
        write_text(runner_text(), runner, args.overwrite)
    size = sum(path.stat().st_size for path in target.files(out))
    shapes = ", ".join("x".join(map(str, shape)) for shape in report.compared_shapes)
    part = report.metadata["part"]
    print(f"{out}: {part}, {size / 1e6:.1f} MB")
    print(f"outputs: {report.metadata['outputs']}")
    print(f"weights equalised: {report.metadata['equalised']}")
    batch = "any batch" if target.has_open_batch else "one image"
    print(f"input: {batch}, {report.metadata['input_size']} height and width")
    print(f"differs from PyTorch by at most {report.max_difference:.1e} of each output's maximum,")
    print(f"run by {target.runtime} on inputs of {shapes}")
    print("normalisation is not inside: see the file's metadata, entry preprocessing")
    refuses = refusal(described)
    if target.suffix in RUNTIMES and part != "backbone" and refuses is not None:
        print(f"warning: {RUNNER_NAME} will refuse this file: {refuses}", file=sys.stderr)


main = partial(cli.run, build_parser, export)


if __name__ == "__main__":
    sys.exit(main())
