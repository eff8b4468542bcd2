"""Count parameters and MACs of any config's model.

Both forms are counted unless --deploy is given. A MAC is one multiplication and one addition; the
tables of OpenMMLab and of most papers call it a FLOP. Counted are convolutions and matrix products.
"""

import sys
from argparse import ArgumentParser, Namespace
from functools import partial

from mmvanilla.apis.complexity import FORMS, count_config
from mmvanilla.apis.config import load_config
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = cli.config_parser(__doc__)
    text = "height and width in pixels (default: the usual size of the toolbox)"
    parser.add_argument("--shape", nargs=2, type=int, metavar=("H", "W"), help=text)
    parser.add_argument("--deploy", action="store_true", help="count the deploy form alone")
    return parser


def count(args: Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options)
    size = args.shape and tuple(args.shape)
    counts, size = count_config(cfg, size, ("deploy",) if args.deploy else FORMS)
    rows = [(*names, number(params / 1e6), number(macs / 1e9)) for *names, params, macs in counts]
    title = f"{args.config}, one image of {size[0]}x{size[1]}"
    cli.show_table(title, ("form", "part", "params, M", "MACs, G"), rows, left=2)
    print("1 MAC = 2 floating-point operations")


def number(value: float) -> str:
    """Format with two decimals, or more if the first of them would be zero."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


main = partial(cli.run, build_parser, count)

if __name__ == "__main__":
    sys.exit(main())
