"""Train configs, or rows of options of them, with several seeds, and put the results side by side.

A config with an entry `ablations` has a row for each line of options in it; another one is a row
as it is. A value such as the learning rate can be chosen for each row on held-out images. Each
result is kept as soon as it is there, and the same command goes on where it was stopped. With
--rounds, the fused networks run in turns at last, on one image at a time, from pixels to
predictions, on all cores: let nothing else run then.
"""

from __future__ import annotations

import copy
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmcv.cnn.utils import fuse_conv_bn
from mmengine.runner import find_latest_checkpoint

from mmvanilla.apis.runners import build_test_runner
from mmvanilla.apis.timing import Timing, time_interleaved
from mmvanilla.engine.channels_last import to_channels_last
from mmvanilla.models.fusion import count_fusable, fuse_model
from mmvanilla.utils import cli
from mmvanilla.utils.numerics import relative_difference
from projects.studies.rows import choose_rows
from projects.studies.tables import results_table, write_table
from projects.studies.trainings import Choice, Trainings

_MOST_DIFFERENCE = 1e-4  # of a backbone's features after folding, in float32


def build_parser() -> ArgumentParser:
    """Build the parser of the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("configs", nargs="+", metavar="config", help="config files or names")
    add("--rows", action="store_true", help="list the rows of these configs, and train nothing")
    add("--switches", nargs="+", metavar="ROW", help="rows to train of each config that has them")
    add(
        "--choose",
        nargs="+",
        metavar=("KEY", "VALUE"),
        help="an option and numbers of which each row gets its own, as optim_wrapper.optimizer.lr "
        "1e-3 3e-3 1e-2: each is trained once, and the one with the highest metric is taken",
    )
    add(
        "--choose-on",
        nargs="+",
        action=cli.OptionsAction,
        default={},
        metavar="KEY=VALUE",
        help="options by which a config validates on held-out training images, for --choose",
    )
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    add("--jobs", type=int, default=1, help="trainings at a time; 0: only tabulate (default: 1)")
    add("--work-dir", default="work_dirs/studies", help="default: work_dirs/studies")
    add("--results", metavar="FILE", help="JSON file with results from before; new ones are added")
    add("--rounds", type=int, default=0, help="timed images of each network (default: none)")
    add(
        "--write",
        nargs=2,
        metavar=("PAGE", "TABLE"),
        help="write the table into this page, too, where two marks with its name stand",
    )
    return parser


def compare(args: Namespace) -> None:
    """Train, and print the table."""
    rows = choose_rows(args.configs, args.switches)
    if args.rows:
        print("\n".join(f"{row.name}  {row.line}".rstrip() for row in rows))
        return
    if args.write:
        write_table(*args.write, table=None)
    choice = None
    if args.choose:
        key, *values = args.choose
        choice = Choice(key, tuple(map(float, values)), args.choose_on)
    trainings = Trainings(rows, args.seeds, args.work_dir, choice, args.jobs, args.results)
    trainings.run()
    timings = None
    if args.rounds:
        folders = {
            state.row.name: trainings.folder(state, args.seeds[0]) for state in trainings.complete
        }
        timings = time_fused(folders, args.rounds)
    table = results_table(trainings.complete, choice.option if choice else None, timings)
    print(f"\n{table}")
    missing = [state.row.name for state in trainings.states if state not in trainings.complete]
    if missing:
        print(f"\nnot in the table, since not all of their runs are there: {', '.join(missing)}")
    if trainings.failures:
        raise RuntimeError(
            f"{len(trainings.failures)} runs failed ({'; '.join(trainings.failures)}); when the "
            "cause is mended, the same command trains only what is missing"
        )
    if args.write:
        write_table(*args.write, table)


def time_fused(folders: dict[str, Path], rounds: int, warmup: int = 3) -> dict[str, Timing]:
    """Time whole trained networks on one image after the other, from pixels to predictions.

    Each is fused, every batch norm that is left is folded into its convolution, a ResNet's too, and
    runs in the memory format channels_last. They run in turns.

    Args:
        folders: The folder of the training of each network, by the network's name.
        rounds: Number of timed images, at least 2.
        warmup: Number of images before these.

    Raises:
        FileNotFoundError: A folder does not have exactly one config.
        RuntimeError: Folding changed the features of a backbone.
    """
    runs = {name: _prepare(name, folder) for name, folder in folders.items()}
    return time_interleaved(runs, rounds, warmup)


def _prepare(name: str, folder: Path) -> Callable[[], object]:
    configs = list(folder.glob("*.py"))
    if len(configs) != 1:
        raise FileNotFoundError(
            f"{folder} has {len(configs)} configs, expected the one of a training of {name}; train "
            "it here without --results, or leave --rounds out"
        )
    runner = build_test_runner(
        str(configs[0]),
        str(find_latest_checkpoint(str(folder))),
        work_dir=str(folder / "timing"),
        cfg_options={"test_dataloader.batch_size": 1, "log_level": "WARNING"},
    )
    runner.load_or_resume()
    model = runner.model.eval()
    batch = next(iter(runner.test_dataloader))
    plain = fuse_conv_bn(fuse_model(model) if count_fusable(model) else copy.deepcopy(model))
    with torch.no_grad():
        images = model.data_preprocessor(copy.deepcopy(batch), False)["inputs"]
        difference = relative_difference(model.backbone(images)[-1], plain.backbone(images)[-1])
    if difference > _MOST_DIFFERENCE:
        raise RuntimeError(f"{name}: folding the norms changed the features by {difference:.1e}")
    to_channels_last(plain)

    @torch.no_grad()
    def run() -> object:
        return plain.test_step(copy.deepcopy(batch))

    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return cli.run(build_parser, compare, argv)


if __name__ == "__main__":
    sys.exit(main())
