"""Train a detector, segmenter or classifier."""

import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from functools import partial

from mmvanilla.apis.runners import build_train_runner
from mmvanilla.checks.config_check import refuse_certain_faults
from mmvanilla.engine import cpu_distributed
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = cli.config_parser(__doc__)
    text = "automatic mixed precision, which needs a GPU (default: as the config says)"
    parser.add_argument("--amp", action=BooleanOptionalAction, help=text)
    text = "scale the learning rate to the actual batch size"
    parser.add_argument("--auto-scale-lr", action="store_true", help=text)
    text = "go on from this checkpoint; without a value, from the last one in the work dir"
    parser.add_argument("--resume", nargs="?", const="auto", help=text)
    text = "train even if the config is found to be wrong"
    parser.add_argument("--no-check", action="store_true", help=text)
    cli.add_runner_options(parser)
    return parser


def train(args: Namespace) -> None:
    if not args.no_check:
        refuse_certain_faults(args.config, args.cfg_options, args.launcher)
    runner = build_train_runner(
        args.config,
        work_dir=args.work_dir,
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        resume=args.resume,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
    )
    runner.train()
    cpu_distributed.finish()


main = partial(cli.run, build_parser, train)

if __name__ == "__main__":
    sys.exit(main())
