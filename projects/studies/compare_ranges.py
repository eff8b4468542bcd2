"""Measure the largest weights and activations before and after equalising; fp16 ends at 65,504.

Rows: VanillaNet-5 to 13 as initialised, on random images, with norm statistics of these images; and
a trained classifier, if a config and a checkpoint are given, on images of its test split.
"""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

import torch
from mmengine.runner import set_random_seed
from torch import Tensor, nn

from mmvanilla import VanillaNet, equalise, fuse_model
from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import TensorModel, load_model
from mmvanilla.deploy.accuracy import Samples
from mmvanilla.utils import cli
from projects.studies.tables import write_table

_ARCHS = ("5", "6", "7", "8", "9", "10", "11", "12", "13")


def build_parser() -> ArgumentParser:
    """Build the parser of the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("trained", nargs="*", metavar="CONFIG CHECKPOINT", help="a trained classifier")
    add("--archs", nargs="*", default=_ARCHS, help="as initialised (default: 5 to 13)")
    add("--shape", nargs=2, type=int, default=(224, 224), metavar=("H", "W"))
    add("--images", type=int, default=4, help="number of images (default: 4)")
    add("--write", nargs=2, metavar=("PAGE", "TABLE"), help="write the table into this page, too")
    cli.add_cfg_options(parser)
    return parser


@torch.no_grad()
def largest_values(model: nn.Module, images: Tensor) -> tuple[float, float]:
    """Return the largest absolute values of all weights and of all layers' outputs."""
    found = [0.0]

    def note(layer: nn.Module, inputs: object, output: Tensor) -> None:
        found.append(float(output.abs().max()))

    convs = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    hooks = [conv.register_forward_hook(note) for conv in convs]
    model(images)
    for hook in hooks:
        hook.remove()
    return max(float(conv.weight.abs().max()) for conv in convs), max(found)


def initialised(arch: str, images: Tensor) -> nn.Module:
    """Make a fused VanillaNet with initial weights, whose norms have the images' statistics."""
    set_random_seed(0)
    logging.disable(logging.INFO)  # mmengine lists each weight that it initialises
    net = VanillaNet(arch, out_indices=(-1,))
    net.init_weights()
    logging.disable(logging.NOTSET)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the statistics of what it has seen, with equal weights
    with torch.no_grad():
        net.train()(images)
    return fuse_model(net.eval(), inplace=True)


def compare(args: Namespace) -> None:
    """Measure, and print the table."""
    if len(args.trained) not in (0, 2):
        raise ValueError(f"give a config and its checkpoint, or neither, found {args.trained}")
    if args.write:
        write_table(*args.write, table=None)
    lines = ["| network | weights, plain | equalised | activations, plain | equalised |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")

    def add_row(name: str, plain: nn.Module, images: Tensor) -> None:
        ranges = [largest_values(TensorModel(net), images) for net in (plain, equalise(plain))]
        cells = [f"{value:.3g}" for pair in zip(*ranges, strict=True) for value in pair]
        lines.append(f"| {name} | {' | '.join(cells)} |")

    images = torch.randn(args.images, 3, *args.shape, generator=torch.Generator().manual_seed(0))
    for arch in args.archs:
        net = initialised(arch, images)
        add_row(f"VanillaNet-{arch}, as initialised", net, images)
    if args.trained:
        cfg = load_config(args.trained[0], args.cfg_options)
        model, _ = load_model(cfg, args.trained[1])
        images = torch.cat([*map(torch.from_numpy, Samples(cfg, "test", args.images).images())])
        name = f"{args.trained[0].rpartition('/')[2].partition('.')[0]}, trained"
        add_row(name, fuse_model(model), images)
    print("\n".join(lines))
    if args.write:
        write_table(*args.write, table="\n".join(lines))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return cli.run(build_parser, compare, argv)


if __name__ == "__main__":
    sys.exit(main())
