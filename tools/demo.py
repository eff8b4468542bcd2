"""Train, test, fuse and test a small Mask R-CNN on made-up images.

Takes about five minutes on two CPU cores.
"""

import sys
import time
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path

from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from mmvanilla.apis.runners import build_test_runner, build_train_runner
from mmvanilla.datasets.shapes import make_shapes
from mmvanilla.deploy.fuse_checkpoint import FuseReport, fuse_checkpoint
from mmvanilla.utils import cli
from mmvanilla.utils.paths import tool_command

# Where the config expects its data.
DATA_ROOT = Path("data/shapes")
METRICS = {"box mAP (0.50:0.95)": "coco/bbox_mAP", "mask mAP (0.50:0.95)": "coco/segm_mAP"}


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="default: shapes/maskrcnn_vanillanet_shapes.py")
    parser.add_argument("--work-dir", default="work_dirs/demo", help="default: work_dirs/demo")
    return parser


def demo(args: Namespace) -> None:
    start = time.monotonic()
    console = Console()
    work_dir = Path(args.work_dir)
    config = args.config or "shapes/maskrcnn_vanillanet_shapes.py"
    fused = work_dir / "fused.pth"

    console.rule("1. data")
    show_command("make_shapes", DATA_ROOT, "--layouts coco", console=console)
    make_shapes(DATA_ROOT, layouts=("coco",))

    console.rule("2. training, which tests at its end")
    show_command("train", config, f"--work-dir {work_dir}", console=console)
    runner = build_train_runner(config, work_dir=str(work_dir))
    runner.train()
    before = measured_in(runner)
    # mmengine writes the name of the newest checkpoint to this file.
    trained = work_dir / Path((work_dir / "last_checkpoint").read_text()).name

    console.rule("3. fusing")
    show_command("fuse_backbone", config, trained, fused, console=console)
    report = fuse_checkpoint(config, str(trained), str(fused), overwrite=True)

    console.rule("4. testing the fused model")
    # A relative folder would be inside of the run's own folder.
    pictures = (work_dir / "pictures").absolute()
    show_command("test", report.config, fused, f"--show-dir {pictures}", console=console)
    test_runner = build_test_runner(
        str(report.config), str(fused), work_dir=str(work_dir / "test"), show_dir=str(pictures)
    )
    after = test_runner.test()

    show(report, before, after, console)
    console.print(f"took {time.monotonic() - start:.0f} s")
    console.print(f"each test image, beside what was found: {pictures}", soft_wrap=True)


def show_command(tool: str, *arguments: object, console: Console) -> None:
    """Show the command that does the same as the next step."""
    line = " ".join(map(str, (tool_command(tool), *arguments)))
    console.print(line, style="bold", soft_wrap=True)


def measured_in(runner: Runner) -> dict[str, float]:
    """Return what the last validation of a training measured."""
    scalars = runner.message_hub.log_scalars
    missing = [key for key in METRICS.values() if f"val/{key}" not in scalars]
    if missing:
        raise ValueError(
            f"the training did not measure {' and '.join(missing)}; take a config of an instance "
            "segmenter whose val_evaluator is CocoMetric with metric=['bbox', 'segm']"
        )
    return {key: scalars[f"val/{key}"].current() for key in METRICS.values()}


def show(
    report: FuseReport, before: dict[str, float], after: dict[str, float], console: Console
) -> None:
    table = Table(title="Mask R-CNN with a narrow VanillaNet-7 on shapes")
    for column in ("", "trained", "fused", "difference"):
        table.add_column(column, justify="right" if column else "left")
    for name, key in METRICS.items():
        row = (before[key], after[key], after[key] - before[key])
        table.add_row(name, *(f"{value:.4f}" for value in row))
    for name, values, digits in (
        ("parameters, M", [form.complexity.params / 1e6 for form in report.forms], 3),
        ("MACs, G", [form.complexity.macs / 1e9 for form in report.forms], 3),
        ("latency, ms (median)", [form.latency_ms for form in report.forms], 1),
    ):
        row = (*values, values[1] - values[0])
        table.add_row(name, *(f"{value:.{digits}f}" for value in row))
    console.print(table)
    console.print(f"MACs and latency: {report.measured}", highlight=False)
    console.print(f"largest relative difference of outputs: {report.max_difference:.1e}")


main = partial(cli.run, build_parser, demo)


if __name__ == "__main__":
    sys.exit(main())
