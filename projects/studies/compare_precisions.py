"""Measure what fp16, bf16 and int8 cost a trained classifier.

The model is fused, and run in PyTorch and in each runtime that is installed: ONNX Runtime,
OpenVINO, ncnn, LiteRT, ExecuTorch. Accuracy is measured on the test split of the config, latency on
one image at a time, all forms in turns.
"""

from __future__ import annotations

import copy
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import TensorModel, load_model
from mmvanilla.deploy.accuracy import Form, MeasuredForm, Samples, measure_forms, to_markdown
from mmvanilla.deploy.exporting import QuantizeJob, export_model, require_packages
from mmvanilla.deploy.formats import find_format
from mmvanilla.deploy.quantize import open_form
from mmvanilla.deploy.runner_runtimes import RUNTIMES
from mmvanilla.models.fusion import count_fusable, fuse_model
from mmvanilla.utils import cli
from projects.studies.tables import write_table

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# How the weights are scaled in int8: names, and `per_channel` of `QuantizeJob`.
_SCALES = {"a scale a channel": True, "a scale a layer": False}


def build_parser() -> ArgumentParser:
    """Build the parser of the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("config", help="config file of the classifier, or its name")
    add("checkpoint", help="checkpoint, trained or fused, that fits the config")
    add(
        "--calibration-images",
        type=int,
        nargs="+",
        default=[128],
        metavar="N",
        help="numbers of training images that set the ranges of int8 (default: 128)",
    )
    add("--test-images", type=int, metavar="N", help="images to measure on (default: all)")
    add("--rounds", type=int, default=30, help="timed runs, at least 2; 0: none (default: 30)")
    add(
        "--write",
        nargs=2,
        metavar=("PAGE", "TABLE"),
        help="write the table into this page, too, where two marks with its name stand",
    )
    cli.add_cfg_options(parser)
    return parser


def compare_precisions(
    cfg: Config,
    checkpoint: str,
    calibrations: Sequence[int],
    test_images: int | None = None,
    rounds: int = 30,
) -> list[MeasuredForm]:
    """Fuse a classifier and measure it in fp32, fp16, bf16 and int8.

    Forms that this CPU, this torch or this environment cannot run are left out.

    Args:
        cfg: Config of the classifier, for its model and its data sets.
        checkpoint: Path or address of the checkpoint, trained or fused.
        calibrations: Numbers of images of the training split to calibrate with.
        test_images: Number of images of the test split to measure on. None: all.
        rounds: Number of timed runs of each form on one image, at least 2. 0: no latency.

    Returns:
        Measurements of each form. The first one, with which the others are compared, is the network
        as it is in the checkpoint.
    """
    test = Samples(cfg, "test", test_images)
    model, _ = load_model(cfg, checkpoint)
    fused = fuse_model(model)
    image = next(test.images())
    forms = {}
    if count_fusable(model):
        forms["PyTorch fp32, as trained"] = _torch_form(model, torch.float32)
    forms["PyTorch fp32, fused"] = _torch_form(fused, torch.float32)
    for name, dtype in _DTYPES.items():
        forms[f"PyTorch {name}, cast"] = _torch_form(fused, dtype)
        forms[f"PyTorch {name}, autocast"] = _torch_form(fused, torch.float32, autocast=dtype)
    forms = {name: form for name, form in forms.items() if _runs(form, image)}
    with TemporaryDirectory() as folder:
        files = write_files(
            fused,
            Path(folder),
            (image.shape[-2], image.shape[-1]),
            {count: Samples(cfg, "train", count).images for count in sorted(set(calibrations))},
        )
        forms.update((name, open_form(path)) for name, path in files)
        measured = measure_forms(forms, test, rounds)
        forms.clear()  # OpenVINO keeps files open
    return measured


def write_files(
    model: nn.Module,
    folder: Path,
    size: tuple[int, int],
    calibrations: Mapping[int, Callable[[], Iterable[np.ndarray]]],
    part: str | None = None,
    suffixes: Iterable[str] = RUNTIMES,
) -> Iterator[tuple[str, Path]]:
    """Write a model, plain and equalised, as files in fp32 and int8, and yield names and paths.

    ``calibrations`` gives normalised images, each (1, C, H, W), by their number. ``size`` and
    ``part`` are those of :func:`export_model`. Formats that cannot be written here are left out.
    """
    for suffix, weights in product(suffixes, ("plain", "equalised")):
        target = find_format(f"net{suffix}")
        try:
            require_packages(*target.packages, *target.quantize_packages)
        except ImportError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        program = f"{target.runtime} {{}}, {weights}"
        full = folder / f"{target.name}_{weights}{suffix}"
        report = export_model(
            model, full, target, size=size, part=part, balance=weights == "equalised"
        )
        print(f"{full.name} differs by {report.max_difference:.1e}", file=sys.stderr)
        yield program.format("fp32"), full
        if target.quantize is None:
            continue
        if target.quantized_from:
            full = full.with_suffix(target.quantized_from)
            source = find_format(full)
            export_model(model, full, source, size=size, part=part, balance=weights == "equalised")
        for count, scale in product(calibrations, _SCALES):
            name = f"{program.format('int8')}, {scale}, {count} images"
            print(f"quantising: {name}", file=sys.stderr)
            path = folder / f"int8_{target.name}_{weights}_{_SCALES[scale]}_{count}{suffix}"
            target.quantize(QuantizeJob(full, calibrations[count](), _SCALES[scale]), path)
            yield name, path


def _torch_form(model: nn.Module, dtype: torch.dtype, autocast: torch.dtype | None = None) -> Form:
    net = copy.deepcopy(TensorModel(model, "logits").eval()).to(dtype)
    size = sum(value.numel() * dtype.itemsize for value in net.state_dict().values())

    @torch.no_grad()
    def run(images: np.ndarray) -> np.ndarray:
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            return net(torch.from_numpy(images).to(dtype)).float().numpy()

    return Form(run, size)


def _runs(form: Form, image: np.ndarray) -> bool:
    try:
        form.run(image)
    except RuntimeError:  # fp16 is not implemented for every CPU and every torch
        return False
    return True


def compare(args: Namespace) -> None:
    """Measure, and print the table."""
    if args.write:
        write_table(*args.write, table=None)
    cfg = load_config(args.config, args.cfg_options)
    counts = args.calibration_images
    forms = compare_precisions(cfg, args.checkpoint, counts, args.test_images, args.rounds)
    table = to_markdown(forms)
    print(table)
    if args.write:
        write_table(*args.write, table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return cli.run(build_parser, compare, argv)


if __name__ == "__main__":
    sys.exit(main())
