"""Check a config before training.

The model is built without weights and runs one image, and the data sets are built and some of
their images go through their pipelines. The check says whether levels, strides, channels, classes,
imports, learning rates and λ fit together, and what the model will be fed; each fault comes with
its remedy, and the status is then 1.
"""

import sys
from argparse import ArgumentParser, Namespace
from functools import partial

from mmvanilla.apis.config import load_config
from mmvanilla.checks.config_check import check_config
from mmvanilla.checks.findings import FAULT, OK
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = cli.config_parser(__doc__)
    text = "images of each split to look at (default: 50)"
    parser.add_argument("--images", type=int, default=50, help=text)
    parser.add_argument("--show-dir", help="folder for a picture of four training samples")
    return parser


def check(args: Namespace) -> None:
    if args.images < 1:
        raise ValueError(f"--images must be at least 1, found {args.images}")
    cfg = load_config(args.config, args.cfg_options)
    findings = check_config(cfg, args.images, args.show_dir)
    fits = [(finding.subject, finding.text) for finding in findings if finding.status == OK]
    cli.show_table(args.config, ("fits", "found"), fits, left=2)
    wrong = [finding for finding in findings if finding.status != OK]
    for finding in wrong:
        print(f"{finding.status}: {finding.subject}: {finding}")
    faults = sum(finding.status == FAULT for finding in wrong)
    if faults:
        raise ValueError(f"{args.config}: {faults} fault{'s' * (faults > 1)}; see the lines above")


main = partial(cli.run, build_parser, check)

if __name__ == "__main__":
    sys.exit(main())
