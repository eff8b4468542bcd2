"""List the configs that come along, or show one with all that it inherits.

What is listed is what any tool takes as its CONFIG: `train shapes/maskrcnn_vanillanet_shapes.py`.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from functools import partial

from mmvanilla.apis.config import load_config
from mmvanilla.apis.config_list import list_configs
from mmvanilla.utils import cli
from mmvanilla.utils.paths import resolve_config


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    text = "list only what has this in its name or description; with * in its name"
    parser.add_argument("pattern", nargs="?", default="", help=text)
    text = "print this config instead, with all that it inherits"
    parser.add_argument("--show", metavar="CONFIG", help=text)
    text = "print only where the file of this config is"
    parser.add_argument("--path", metavar="CONFIG", help=text)
    cli.add_cfg_options(parser)
    return parser


def run(args: Namespace) -> None:
    if args.path:
        print(resolve_config(args.path))
    elif args.show:
        print(load_config(args.show, args.cfg_options).pretty_text)
    else:
        show_list(args.pattern)


def show_list(pattern: str) -> None:
    configs = list_configs(pattern)
    if not configs:
        raise ValueError(f"no config has {pattern!r} in its name or description")
    for name, about in configs.items():
        print(f"{name}\n    {about}")


main = partial(cli.run, build_parser, run)

if __name__ == "__main__":
    sys.exit(main())
