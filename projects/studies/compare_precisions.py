"""Measure what fp16, bf16 and int8 cost a trained classifier.

The model is fused, and run in PyTorch, ONNX Runtime and, if it is installed, OpenVINO. Accuracy is
measured on the test split of the config, latency on one image at a time, all forms in turns.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

from rich.console import Console

from mmvanilla.apis.config import load_config
from mmvanilla.apis.data_checks import require_data
from mmvanilla.deploy.accuracy import to_markdown
from mmvanilla.utils import cli
from projects.studies.page_tables import require_marks, write_table
from projects.studies.precision import CALIBRATIONS, compare_precisions


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file of the classifier, or its name")
    parser.add_argument("checkpoint", help="checkpoint, trained or fused, that fits the config")
    parser.add_argument(
        "--calibration-images",
        type=int,
        nargs="+",
        default=list(CALIBRATIONS),
        metavar="N",
        help="numbers of images of the training split that set the ranges of int8, each at least 1 "
        f"(default: {' '.join(map(str, CALIBRATIONS))})",
    )
    parser.add_argument(
        "--test-images",
        type=int,
        metavar="N",
        help="images of the test split to measure on, at least 1 (default: all)",
    )
    parser.add_argument(
        "--rounds", type=int, default=30, help="timed runs, at least 2; 0: none (default: 30)"
    )
    parser.add_argument(
        "--by-layer",
        action="store_true",
        help="instead, put one layer at a time into int8, to find the one that costs accuracy; "
        "`quantize --keep-float` leaves it out",
    )
    cli.add_page(parser)
    cli.add_cfg_options(parser)
    return parser


def compare(args: Namespace) -> None:
    if args.write:
        require_marks(*args.write)
    cfg = load_config(args.config, args.cfg_options)
    require_data(cfg, "train_dataloader", "test_dataloader")
    console = Console(stderr=True)
    with console.status("starting") as status:
        forms = compare_precisions(
            cfg,
            args.checkpoint,
            calibrations=args.calibration_images,
            test_images=args.test_images,
            rounds=args.rounds,
            by_layer=args.by_layer,
            progress=status.update,
        )
    table = to_markdown(forms)
    print(table)
    if args.write:
        write_table(*args.write, table)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), compare, argv)


if __name__ == "__main__":
    sys.exit(main())
