"""Quantise an exported classifier to int8, and measure accuracy and latency before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.config import Config

from mmvanilla.checkpoints.writing import appearing_together, check_writable
from mmvanilla.deploy.accuracy import Form, MeasuredForm, Samples, measure_forms
from mmvanilla.deploy.exporting import require_packages
from mmvanilla.deploy.formats import find_format
from mmvanilla.deploy.litert_quantize import quantize_litert
from mmvanilla.deploy.onnx_quantize import quantize_onnx
from mmvanilla.deploy.openvino_quantize import quantize_openvino
from mmvanilla.deploy.runner_runtimes import RUNTIMES
from mmvanilla.utils.paths import tool_command

MAX_DROP = 5.0
#: What has a weight scale of its own.
SCHEMES = ("channel", "layer")
#: For each suffix the function that quantises such a file, and the packages that it needs.
QUANTIZERS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    ".onnx": (quantize_onnx, ("onnx", "onnxruntime")),
    ".xml": (quantize_openvino, ("openvino", "nncf")),
    ".tflite": (quantize_litert, ("ai_edge_litert", "ai_edge_quantizer")),
}


def open_form(path: Path) -> Form:
    """Open an exported file in its runtime, to measure it."""
    run, _ = RUNTIMES[path.suffix][0](path, threads=torch.get_num_threads())
    size = sum(file.stat().st_size for file in find_format(path).files(path))
    return Form(lambda images: run(images)[0], size)


def quantize_classifier(
    cfg: Config,
    model: str | Path,
    out: str | Path,
    *,
    scheme: str = "channel",
    calibration_images: int = 128,
    test_images: int | None = None,
    rounds: int = 30,
    keep_float: Sequence[str] = (),
    max_drop: float = MAX_DROP,
    overwrite: bool = False,
) -> list[MeasuredForm]:
    """Quantise a classifier, write it, and return measurements of its fp32 form and its int8 form.

    Weights become int8 (symmetric), activations 8-bit integers, with the ranges that they have on
    calibration images of the training split. The metadata is kept.

    Args:
        cfg: Config of the classifier, for its data sets.
        model: Path of the fp32 file that ``mmvanilla export`` wrote for it.
        out: Path of the file to write, with the same suffix.
        scheme: Whether each ``'channel'`` or only each ``'layer'`` has a weight scale of its own.
        calibration_images: Number of images of the training split, at least 1.
        test_images: Number of images of the test split to measure on, at least 1. None: all.
        rounds: Number of timed runs of each form, at least 2.
        keep_float: Names of layers to leave in fp32; the error for a wrong name lists them.
        max_drop: Largest loss of top-1 accuracy on the test images, in points.
        overwrite: Whether to replace an existing file.

    Raises:
        OSError: ``out`` exists and ``overwrite`` is False, or the model does not exist.
        ValueError: The config is not a classifier's, a number is not allowed, ``out`` is ``model``,
            the suffix has no int8 form, or the model has no layer of a name in ``keep_float``.
        RuntimeError: int8 loses more than ``max_drop`` points; nothing is written.
        ImportError: The runtime, or what quantises for it, is not installed.
    """
    model, out = Path(model), Path(out)
    if not model.is_file():
        raise FileNotFoundError(f"no model at {model}; write one with `{tool_command('export')}`")
    if model.suffix not in QUANTIZERS:
        raise ValueError(
            f"{model} has no int8 form here; give a file that ends in {' or '.join(QUANTIZERS)}"
        )
    if not max_drop >= 0:
        raise ValueError(f"max_drop must be a number of points, at least 0, found {max_drop}")
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, found {scheme!r}")
    quantize, packages = QUANTIZERS[model.suffix]
    target = find_format(model)
    files = target.files(out)
    check_writable(files, overwrite, target.files(model))
    require_packages(*packages)
    calibration = Samples(cfg, "train", calibration_images)
    test = Samples(cfg, "test", test_images)
    with appearing_together(files, overwrite) as aside:
        options = dict(per_channel=scheme == "channel", keep_float=keep_float)
        quantize(model, aside[0], calibration.images(), **options)
        forms = {"fp32": open_form(model), "int8": open_form(aside[0])}
        full, small = measured = measure_forms(forms, test, rounds)
        del forms  # OpenVINO keeps the files open
        if full.accuracy - small.accuracy > max_drop:
            raise RuntimeError(
                f"int8 falls from {full.accuracy:.2f} to {small.accuracy:.2f} % top-1, more than "
                f"{max_drop:g} points, so nothing was written; often the channels of some layers "
                "have too different ranges: leave these layers in fp32 by --keep-float (an unknown "
                "name lists all), take more --calibration-images, or allow it by --max-drop"
            )
    return measured
