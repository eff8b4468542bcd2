"""Train, test, fuse and test a small Mask R-CNN on made-up images.

Takes six to nine minutes on two CPU cores.
"""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.console import Console

from mmvanilla.apis.runners import build_test_runner, build_train_runner
from mmvanilla.datasets.shapes import make_shapes
from mmvanilla.deploy.fuse_checkpoint import FuseReport, fuse_checkpoint
from mmvanilla.utils import cli
from mmvanilla.utils.paths import tool_command

DATA_ROOT = Path("data/shapes")  # where the config expects its data
METRICS = {"box mAP (0.50:0.95)": "coco/bbox_mAP", "mask mAP (0.50:0.95)": "coco/segm_mAP"}


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="shapes/maskrcnn_vanillanet_shapes.py")
    parser.add_argument("--work-dir", default="work_dirs/demo", help="default: work_dirs/demo")
    return parser


def demo(args: Namespace) -> None:
    start = time.monotonic()
    console = Console(markup=False, emoji=False)
    work_dir = Path(args.work_dir)
    fused = work_dir / "fused.pth"

    def step(title: str, tool: str, *arguments: object) -> None:
        """Show a title, and the command that does the same as this step."""
        console.rule(title)
        line = " ".join(map(str, (tool_command(tool), *arguments)))
        console.print(line, style="bold", soft_wrap=True)

    step("1. data", "make_shapes", DATA_ROOT, "--layouts coco")
    make_shapes(DATA_ROOT, layouts=("coco",))

    step("2. training, which tests at its end", "train", args.config, f"--work-dir {work_dir}")
    runner = build_train_runner(args.config, work_dir=str(work_dir))
    runner.train()
    scalars = runner.message_hub.log_scalars
    before = {key: scalars[f"val/{key}"].current() for key in METRICS.values()}
    # mmengine writes the name of the newest checkpoint to this file.
    trained = work_dir / Path((work_dir / "last_checkpoint").read_text()).name

    step("3. fusing", "fuse_backbone", args.config, trained, fused)
    report = fuse_checkpoint(args.config, str(trained), str(fused), overwrite=True)

    # A relative folder would be inside of the run's own folder.
    pictures = (work_dir / "pictures").absolute()
    step("4. testing the fused model", "test", report.config, fused, f"--show-dir {pictures}")
    test_runner = build_test_runner(
        str(report.config), str(fused), work_dir=str(work_dir / "test"), show_dir=str(pictures)
    )
    after = test_runner.test()

    title = "Mask R-CNN with a narrow VanillaNet-7 on shapes"
    cli.show_table(title, ("", "trained", "fused", "difference"), rows(report, before, after))
    console.print(f"MACs and latency: {report.measured}", highlight=False)
    console.print(f"largest relative difference of outputs: {report.max_difference:.1e}")
    console.print(f"took {time.monotonic() - start:.0f} s")
    console.print(f"each test image, beside what was found: {pictures}", soft_wrap=True)


def rows(
    report: FuseReport, before: dict[str, float], after: dict[str, float]
) -> Iterator[tuple[str, ...]]:
    for name, first, second, digits in (
        *((name, before[key], after[key], 4) for name, key in METRICS.items()),
        ("parameters, M", *(form.complexity.params / 1e6 for form in report.forms), 3),
        ("MACs, G", *(form.complexity.macs / 1e9 for form in report.forms), 3),
        ("latency, ms (median)", *(form.latency_ms for form in report.forms), 1),
    ):
        yield (name, *(f"{value:.{digits}f}" for value in (first, second, second - first)))


main = partial(cli.run, build_parser, demo)

if __name__ == "__main__":
    sys.exit(main())
