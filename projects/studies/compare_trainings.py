"""Train configs with several seeds, and put the networks side by side.

The table has their metrics as trained and fused, their sizes and the latency. Each result is kept
as soon as it is there, and the same command goes on where it was stopped. At last the fused
networks run in turns on one image at a time, from pixels to predictions, on all cores: let nothing
else run then.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

from mmvanilla.utils import cli
from projects.studies import trainings_tool
from projects.studies.ablation_rows import whole_configs
from projects.studies.comparison_table import comparison_table
from projects.studies.page_tables import require_marks, write_table
from projects.studies.train_and_compare import time_fused
from projects.studies.training_state import RowState
from projects.studies.trainings import Trainings


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "configs",
        nargs="+",
        metavar="config",
        help="config files or names, such as small/vanillanet_fashion_mnist.py",
    )
    trainings_tool.add_options(parser, work_dir="work_dirs/comparison")
    parser.add_argument(
        "--rounds",
        type=int,
        default=100,
        help="timed images of each network, at least 2; 0: no timing (default: 100)",
    )
    cli.add_page(parser)
    return parser


def folders_to_time(trainings: Trainings, states: list[RowState]) -> dict[str, str]:
    """Find a folder with a trained network for each row, which a result from elsewhere lacks."""
    found = {}
    for state in states:
        for ended in state.runs:
            folder = trainings.folder(ended.run)
            if (folder / "last_checkpoint").is_file():
                found.setdefault(state.row.name, str(folder))
    return found


def run(args: Namespace) -> None:
    if args.rounds == 1 or args.rounds < 0:
        raise ValueError(f"--rounds must be 0 or at least 2, found {args.rounds}")
    rows = whole_configs(args.configs)
    if args.write:
        require_marks(*args.write)
    trainings = trainings_tool.run(rows, args)
    states = trainings.complete
    timings = None
    folders = folders_to_time(trainings, states) if args.rounds else {}
    if folders and len(folders) == len(states):
        timings = time_fused(folders, args.rounds)
    elif args.rounds and states:
        print("no latency in the table: the trained networks of some rows are not on this machine")
    table = comparison_table(states, timings)
    print(f"\n{table}")
    trainings_tool.finish(trainings, args)
    if args.write:
        write_table(*args.write, table)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
