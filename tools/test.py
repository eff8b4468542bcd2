"""Test a detector, segmenter or classifier with the metrics of its config."""

import sys
from argparse import ArgumentParser, Namespace
from functools import partial

from mmvanilla.apis.runners import build_test_runner
from mmvanilla.engine import cpu_distributed
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = cli.config_parser(__doc__)
    parser.add_argument("checkpoint", help="checkpoint file, or an address such as vanillanet://13")
    parser.add_argument("--out", help=".pkl file for the raw predictions")
    parser.add_argument("--show-dir", help="folder for pictures of the predictions")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    cli.add_runner_options(parser)
    return parser


def test(args: Namespace) -> None:
    runner = build_test_runner(
        args.config,
        args.checkpoint,
        work_dir=args.work_dir,
        out=args.out,
        show_dir=args.show_dir,
        tta=args.tta,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
    )
    runner.test()
    cpu_distributed.finish()


main = partial(cli.run, build_parser, test)


if __name__ == "__main__":
    sys.exit(main())
