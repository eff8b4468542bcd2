"""Train the rows of a table of ablations with several seeds, and compare them.

The rows are those of each config's entry `ablations`, or else the paper's switches of a VanillaNet.
A value such as the learning rate can be chosen for each row on held-out images. Each result is kept
as soon as it is there, and the same command goes on where it was stopped.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

from mmvanilla.utils import cli
from projects.studies import trainings_tool
from projects.studies.ablation_rows import choose_rows, options_line, paper_switches
from projects.studies.ablation_table import ablation_table
from projects.studies.page_tables import require_marks, write_table
from projects.studies.training_state import Choice

TABLE = "ablations"  # its name in the page


def build_parser() -> ArgumentParser:
    switches = paper_switches()
    width = max(map(len, switches))
    lines = [f"  {name:<{width}}  {options_line(switches[name])}".rstrip() for name in switches]
    parser = ArgumentParser(
        description=__doc__,
        epilog="the paper's switches, and the options by which any tool trains the same:\n"
        + "\n".join(lines),
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "configs",
        nargs="+",
        metavar="config",
        help="config files or names, such as ablations/vanillanet6_fashion_mnist.py",
    )
    parser.add_argument(
        "--rows", action="store_true", help="list the rows of these configs, and train nothing"
    )
    parser.add_argument(
        "--switches",
        nargs="+",
        metavar="SWITCH",
        help="rows to train of each config that has them (default: all rows)",
    )
    parser.add_argument(
        "--choose",
        nargs="+",
        metavar=("KEY", "VALUE"),
        help="an option and numbers of which each row gets its own, as optim_wrapper.optimizer.lr "
        "1e-3 3e-3 1e-2: each is trained once, and the one with the highest metric is taken",
    )
    parser.add_argument(
        "--choose-on",
        nargs="+",
        action=cli.OptionsAction,
        metavar="KEY=VALUE",
        help="options by which a config validates on held-out training images, for --choose",
    )
    trainings_tool.add_options(parser, work_dir="work_dirs/ablations")
    parser.add_argument("--write", metavar="PAGE", help="write the table into this page, too")
    return parser


def read_choice(args: Namespace) -> Choice | None:
    if args.choose is None:
        if args.choose_on:
            raise ValueError("--choose-on needs --choose, which says what to choose")
        return None
    if not args.choose_on:
        raise ValueError(
            "--choose needs --choose-on with options that validate on held-out training images, as "
            "val_dataloader.dataset.split=train val_dataloader.dataset.indices=-10000"
        )
    key, *words = args.choose
    try:
        values = tuple(float(word) for word in words)
    except ValueError as error:
        raise ValueError(f"--choose takes a key and numbers, found {' '.join(words)}") from error
    return Choice(key, values, args.choose_on)


def run(args: Namespace) -> None:
    rows = choose_rows(args.configs, args.switches)
    if args.rows:
        for row in rows:
            print(f"{row.name}  {options_line(row.options)}".rstrip())
        return
    choice = read_choice(args)
    if args.write:
        require_marks(args.write, TABLE)
    trainings = trainings_tool.run(rows, args, choice)
    table = ablation_table(trainings.complete, choice)
    print(f"\n{table}")
    trainings_tool.finish(trainings, args)
    if args.write:
        write_table(args.write, TABLE, table)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
