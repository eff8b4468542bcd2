"""Train a detector, segmenter or classifier."""

import logging
import os
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from functools import partial

from mmengine.logging import print_log

from mmvanilla.apis.config import load_config
from mmvanilla.apis.runners import build_train_runner
from mmvanilla.checks.config_check import check_config
from mmvanilla.checks.findings import OK
from mmvanilla.engine import cpu_distributed
from mmvanilla.utils import cli
from mmvanilla.utils.paths import tool_command

_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
_FEW = 8  # images that are looked at before a training


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


def check(args: Namespace) -> None:
    """Refuse a config with which training cannot work, and log what else is wrong."""
    cfg = load_config(args.config, args.cfg_options)
    findings = check_config(cfg, images=_FEW, thorough=False)
    if certain := [str(item) for item in findings if item.certain]:
        raise ValueError(
            f"{args.config} cannot be trained: {'. Also: '.join(certain)}. "
            f"`{tool_command('check')} {args.config}` shows the rest; --no-check trains anyway"
        )
    for item in findings:
        if item.status != OK:
            print_log(f"{args.config}: {item}", logger="current", level=logging.WARNING)


def train(args: Namespace) -> None:
    is_first = all(os.environ.get(name, "0") == "0" for name in _RANKS)
    if is_first and not args.no_check:
        check(args)
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
