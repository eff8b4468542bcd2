"""Measure what int8 in its backbone costs a trained detector or segmenter.

The backbone is exported, plain and with equalised weights, quantised, and put back into the model
as a file that ONNX Runtime or OpenVINO runs. All that is behind it stays in PyTorch. The metrics
are the config's own, on its test split.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from torch import Tensor, nn

from mmvanilla.apis.config import leaves, load_config, tested_dataset
from mmvanilla.apis.runners import build_test_runner
from mmvanilla.deploy.runner_runtimes import RUNTIMES
from mmvanilla.utils import cli
from projects.studies.compare_precisions import write_files
from projects.studies.tables import write_table


def build_parser() -> ArgumentParser:
    """Build the parser of the command line."""
    parser = cli.config_parser(__doc__)
    add = parser.add_argument
    add("checkpoint", help="checkpoint, trained or fused, that fits the config")
    text = "number of training images that set the ranges of int8 (default: 128)"
    add("--calibration-images", type=int, default=128, metavar="N", help=text)
    text = "write the table into this page, too, where two marks with its name stand"
    add("--write", nargs=2, metavar=("PAGE", "TABLE"), help=text)
    return parser


class FileBackbone(nn.Module):
    """A backbone that is a file: images (N, C, H, W) to a tuple of features."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.run, _ = RUNTIMES[path.suffix][0](path, threads=torch.get_num_threads())

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the file."""
        return tuple(torch.from_numpy(each) for each in self.run(images.numpy()))


def compare_backbones(
    config: str, checkpoint: str, count: int, options: dict[str, Any] | None = None
) -> dict[str, dict[str, float]]:
    """Test a model with each form of its backbone, and return the metrics of each.

    Args:
        config: Path or name of the config of a detector or segmenter.
        checkpoint: Path of its weights, trained or fused.
        count: Number of images of the training split to calibrate with.
        options: Values by dotted key, which override entries of the config.
    """
    cfg = load_config(config, options)
    with TemporaryDirectory() as folder:
        runner = build_test_runner(config, checkpoint, work_dir=folder, cfg_options=options)
        results = {"PyTorch fp32, as given": runner.test()}
        model: Any = runner.model
        given = model.backbone
        images = list(_calibration_images(cfg, model, count))
        size = images[0].shape[-2:]
        suffixes = (".onnx", ".xml")
        files = write_files(
            model, Path(folder), size, {count: lambda: iter(images)}, "backbone", suffixes
        )
        for name, path in files:
            model.backbone = FileBackbone(path)
            results[name] = runner.test()
            model.backbone = given
    return results


def _calibration_images(cfg: Config, model: Any, count: int) -> Iterator[np.ndarray]:
    dataset = next(leaves(cfg.train_dataloader.dataset))
    built = DATASETS.build({**dataset, "pipeline": tested_dataset(cfg).pipeline})
    for index in np.linspace(0, len(built) - 1, min(count, len(built))).round().astype(int):
        batch = pseudo_collate([built[int(index)]])
        yield model.data_preprocessor(batch, False)["inputs"].numpy()


def to_markdown(results: dict[str, dict[str, float]]) -> str:
    """Make a table of metrics in Markdown, of those that are means over all classes."""
    first = next(iter(results.values()))
    shown = [name for name in first if name.endswith(("_mAP", "_mAP_50", "mIoU", "aAcc", "mAcc"))]
    lines = [f"| backbone | {' | '.join(shown)} |", "|---|" + "---:|" * len(shown)]
    for form, metrics in results.items():
        values = " | ".join(f"{metrics[name]:.4g}" for name in shown)
        lines.append(f"| {form} | {values} |")
    return "\n".join(lines)


def compare(args: Namespace) -> None:
    """Measure, and print the table."""
    if args.write:
        write_table(*args.write, table=None)
    results = compare_backbones(
        args.config, args.checkpoint, args.calibration_images, args.cfg_options
    )
    table = to_markdown(results)
    print(table)
    if args.write:
        write_table(*args.write, table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return cli.run(build_parser, compare, argv)


if __name__ == "__main__":
    sys.exit(main())
