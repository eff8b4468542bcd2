"""Quantise an exported classifier to int8, and measure accuracy and latency before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config

from mmvanilla.checkpoints.writing import appearing_together, check_writable
from mmvanilla.deploy.accuracy import Form, MeasuredForm, Samples, measure_forms
from mmvanilla.deploy.exporting import QuantizeJob, require_packages
from mmvanilla.deploy.formats import FORMATS, find_format
from mmvanilla.deploy.runner_runtimes import RUNTIMES
from mmvanilla.utils.paths import tool_command

MAX_DROP = 5.0
SCHEMES = ("channel", "layer")  # what has a weight scale of its own


def open_form(path: Path) -> Form:
    """Open an exported file in its runtime, to measure it."""
    target = find_format(path)
    if path.suffix in RUNTIMES:
        run, _ = RUNTIMES[path.suffix][0](path, threads=torch.get_num_threads())
    else:
        run, _ = target.open(path)
    size = sum(file.stat().st_size for file in target.files(path))
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

    Weights become int8 (symmetric), activations 8-bit integers, with ranges that each library
    chooses on calibration images of the training split (ONNX Runtime and LiteRT: those of all
    images); scores of a softmax stay floats. The metadata is kept.

    Args:
        cfg: Config of the classifier, for its data sets.
        model: Path of the fp32 file that ``mmvanilla export`` wrote for it.
        out: Path of the file to write, with the same suffix; ``.pte`` is made of ``.pt2``.
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
            no such int8 file is made of the model, or it has no layer of a name in ``keep_float``.
        RuntimeError: int8 loses more than ``max_drop`` points; nothing is written.
        ImportError: The runtime, or what quantises for it, is not installed.
    """
    model, out = Path(model).expanduser(), Path(out).expanduser()
    if not model.is_file():
        raise FileNotFoundError(f"no model at {model}; write one with `{tool_command('export')}`")
    target = find_format(out)
    if target.quantize is None:
        known = " or ".join(each.suffix for each in FORMATS.values() if each.quantize)
        raise ValueError(f"{out} has no int8 form here; end it with {known}")
    source = target.quantized_from or target.suffix
    if model.suffix != source:
        raise ValueError(f"an int8 {out.suffix} file is made of an {source} file, found {model}")
    if not max_drop >= 0:
        raise ValueError(f"max_drop must be a number of points, at least 0, found {max_drop}")
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, found {scheme!r}")
    files = target.files(out)
    check_writable(files, overwrite, find_format(model).files(model))
    require_packages(*target.quantize_packages)
    if (part := find_format(model).open(model)[1].get("part", "classifier")) != "classifier":
        raise ValueError(f"{model} has a {part}; only classifiers can be quantised")
    calibration = Samples(cfg, "train", calibration_images)
    test = Samples(cfg, "test", test_images)
    with appearing_together(files, overwrite) as aside:
        job = QuantizeJob(model, calibration.images(), scheme == "channel", keep_float)
        target.quantize(job, aside[0])
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
