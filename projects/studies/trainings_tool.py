"""What the tools that train the rows of a table share: their options, and how they end."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from projects.studies.ablation_rows import Row
from projects.studies.training_state import Choice
from projects.studies.trainings import Trainings


def add_options(parser: ArgumentParser, work_dir: str) -> None:
    """Add the options of :func:`run`.

    Args:
        parser: Parser of the tool.
        work_dir: The tool's default folder for the trainings.
    """
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="trainings beside each other; 0 only tabulates what is there (default: 1)",
    )
    parser.add_argument("--work-dir", default=work_dir, help=f"default: {work_dir}")
    parser.add_argument(
        "--results",
        metavar="FILE",
        help="JSON file with results from before; new ones are added to it",
    )


def run(rows: list[Row], args: Namespace, choice: Choice | None = None) -> Trainings:
    """Train the rows, and print a line about each result.

    Args:
        rows: The rows to train.
        args: The parsed options.
        choice: How each row gets its value of an option; None: the config's.
    """
    trainings = Trainings(rows, args.seeds, args.work_dir, choice, args.jobs, args.results)
    trainings.run(lambda line: print(line, flush=True))
    return trainings


def finish(trainings: Trainings, args: Namespace) -> None:
    """Say which rows are not in the table, and fail if a training failed.

    Raises:
        RuntimeError: A training failed.
    """
    missing = [state.row.name for state in trainings.states if state not in trainings.complete]
    if missing:
        print(f"\nnot in the table, since not all of their runs are there: {', '.join(missing)}")
    if trainings.failures:
        names = "; ".join(trainings.failures)
        raise RuntimeError(
            f"{len(trainings.failures)} runs failed ({names}), with their logs in {args.work_dir}; "
            "the other results are kept: when the cause is mended, the same command trains only "
            "what is missing"
        )
