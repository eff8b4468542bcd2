"""Convert a checkpoint of VanillaNet's authors.

Reads a classifier (training or deploy form) or a detector of MMDetection 2.x, checks every weight,
and prints what it found with the config line to use.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import Any

from mmvanilla.checkpoints.authors_keys import BACKBONE, CLASSIFIER
from mmvanilla.checkpoints.conversion import convert_and_write
from mmvanilla.utils import cli


def parse_arch(text: str | None) -> str | dict[str, Any] | None:
    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--arch is not valid JSON: {error}; found {text}") from error


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path, metavar="IN", help="the authors' file")
    parser.add_argument("output", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument(
        "--arch",
        help="the variant, if the weights do not determine it: a name such as 13-1.5x-ada, or JSON "
        'such as \'{"dims": [16, 32, 64], "strides": [2, 2]}\'; the weights are checked against it',
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    return parser


def convert(args: Namespace) -> None:
    converted, found = convert_and_write(
        args.input, args.output, parse_arch(args.arch), args.overwrite
    )
    meta = converted["meta"]
    deploy = ", deploy=True" if found.deploy else ""
    channels = f", in_channels={meta['in_channels']}" if meta["in_channels"] != 3 else ""
    prefix = "" if found.kind == BACKBONE else ", prefix='backbone.'"
    print(
        f"found:  VanillaNet arch={meta['arch']!r}, act_num={found.act_num}, "
        f"{'deploy' if found.deploy else 'training'} form, from {meta['converted_from']}\n"
        f"wrote:  {len(found.state_dict)} tensors of a {found.kind} to {args.output}\n"
        f"config: backbone=dict(type='VanillaNet', arch={meta['arch']!r}, act_num={found.act_num}"
        f"{channels}{deploy})"
    )
    if found.kind == CLASSIFIER:
        print(
            f"        head=dict(type='VanillaNetClsHead', num_classes={found.num_classes}, "
            f"in_channels={found.dims[-1]}{deploy})"
        )
    print(
        "only the backbone's weights: "
        f"init_cfg=dict(type='Pretrained', checkpoint={str(args.output)!r}{prefix})"
    )
    if meta["act_lambda"] != 1.0 and not found.deploy:
        print(f"note:   saved at λ = {meta['act_lambda']:g}, so it cannot be fused yet")


main = partial(cli.run, build_parser, convert)


if __name__ == "__main__":
    sys.exit(main())
