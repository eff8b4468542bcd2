"""What the tools that make a drawn data set have in common: options, progress and report."""

from __future__ import annotations

import inspect
import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from rich.progress import track

#: A function such as :func:`mmvanilla.datasets.shapes.make_shapes`.
Make = Callable[..., tuple[str, ...]]


def build_parser(description: str | None, make: Make, root: str) -> ArgumentParser:
    """Build the parser of a tool; the defaults are those of the function that it calls.

    Args:
        description: What the tool does.
        make: Function that makes the data set.
        root: Folder to write to, unless another one is given.
    """
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(make).parameters.items()
    }
    parser = ArgumentParser(description=description, formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("root", nargs="?", default=root, help="folder to write to")
    parser.add_argument(
        "--layouts",
        nargs="+",
        default=list(defaults["layouts"]),
        metavar="NAME",
        help="which layouts to make",
    )
    for name, metavar, meaning in (
        ("num_train", "N", "training images"),
        ("num_val", "N", "validation images"),
        ("image_size", "PX", "height and width"),
        ("seed", "SEED", "the same seed gives the same files"),
    ):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=defaults[name], metavar=metavar, help=meaning)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace layouts made with other settings"
    )
    return parser


def draw(args: Namespace, make: Make, what: str) -> None:
    """Make the data set, with a bar of progress, and print which layouts were written.

    Args:
        args: The options of :func:`build_parser`, and further arguments of ``make`` by name.
        make: Function that makes the data set.
        what: What is drawn, for people.
    """
    start = time.perf_counter()
    parameters = inspect.signature(make).parameters
    given: dict[str, Any] = {name: vars(args)[name] for name in parameters if name in args}
    made = make(**given, progress=lambda tasks: track(tasks, description=f"drawing {what}"))
    for layout in parameters["layouts"].default:
        if layout in made:
            print(
                f"{args.root}/{layout}: {args.num_train} training and {args.num_val} validation "
                f"images of {args.image_size}x{args.image_size}, seed {args.seed}"
            )
        elif layout in args.layouts:
            print(f"{args.root}/{layout}: already there, nothing to do")
    if made:
        print(f"made in {time.perf_counter() - start:.1f} s")
