"""Quantise an exported classifier to int8, and measure accuracy and latency before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config

from mmvanilla.checkpoints.writing import appearing_together, check_writable
from mmvanilla.deploy.accuracy import Form, MeasuredForm, Samples, measure_forms
from mmvanilla.deploy.exporting import Format, require_packages
from mmvanilla.deploy.formats import FORMATS
from mmvanilla.deploy.onnx_quantize import quantize_onnx
from mmvanilla.deploy.openvino_quantize import quantize_openvino
from mmvanilla.deploy.runner_runtimes import open_onnx, open_openvino
from mmvanilla.utils.paths import tool_command

MAX_DROP = 5.0
#: What has a weight scale of its own.
SCHEMES = ("channel", "layer")


class Runtime(NamedTuple):
    """How the files of one runtime are quantised and run.

    Attributes:
        target: Format of the files.
        require: Function that raises an ImportError, with the remedy, if something is missing.
        quantize: Function of the model's path, the path to write, images to calibrate with, and
            the options ``per_channel`` and ``keep_float``.
        open: Function that opens a file with a number of threads, to run it on images.
    """

    target: Format
    require: Callable[[], None]
    quantize: Callable[..., None]
    open: Callable[[Path, int], Callable[[np.ndarray], np.ndarray]]

    def form(self, path: Path) -> Form:
        """Open a file, to measure it."""
        size = sum(file.stat().st_size for file in self.target.files(path))
        return Form(self.open(path, torch.get_num_threads()), size)


def _open(
    open_file: Callable[..., Any], path: Path, threads: int
) -> Callable[[np.ndarray], np.ndarray]:
    run, _ = open_file(path, threads=threads)
    return lambda images: run(images)[0]


#: The runtimes that have int8, by the suffixes of their files.
RUNTIMES: dict[str, Runtime] = {
    ".onnx": Runtime(
        FORMATS["onnx"],
        partial(require_packages, "onnx", "onnxruntime"),
        quantize_onnx,
        partial(_open, open_onnx),
    ),
    ".xml": Runtime(
        FORMATS["openvino"],
        partial(require_packages, "openvino", "nncf"),
        quantize_openvino,
        partial(_open, open_openvino),
    ),
}


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
    progress: Callable[[str], None] = lambda step: None,
) -> list[MeasuredForm]:
    """Quantise a classifier, measure accuracy and latency before and after, and write it.

    An ``.onnx`` file is quantised by ONNX Runtime, an ``.xml`` file by NNCF for OpenVINO. The
    weights of all layers become int8 (symmetric). Activations become 8-bit integers, with the
    ranges that they have on calibration images of the training split. The metadata is kept.

    Args:
        cfg: Config of the classifier, for its data sets.
        model: Path of the fp32 file that ``mmvanilla export`` wrote for it, ``.onnx`` or ``.xml``.
        out: Path of the file to write, with the same suffix.
        scheme: Whether each ``'channel'`` (default) or only each ``'layer'`` has a weight scale of
            its own; for the latter the weights should have been equalised, as export does.
        calibration_images: Number of images of the training split to calibrate with, at least 1.
        test_images: Number of images of the test split to measure on, at least 1. None: all.
        rounds: Number of timed runs of each form, at least 2.
        keep_float: Names of layers to leave in fp32, as an error for a wrong name lists them.
            Default: none.
        max_drop: Largest loss of top-1 accuracy on the test images, in points. Default: 5.
        overwrite: Whether to replace an existing file. Default: False.
        progress: Function that is called with the name of each step.

    Returns:
        Measurements of the fp32 form and of the int8 form.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is False.
        FileNotFoundError: The model does not exist.
        ValueError: The config is not a classifier's, a number is not allowed, ``out`` is ``model``,
            their suffixes differ or have no int8 form, or the model has no layer of a name in
            ``keep_float``.
        RuntimeError: int8 loses more than ``max_drop`` points; nothing is written.
        ImportError: The runtime, or what quantises for it, is not installed.
    """
    model, out = Path(model), Path(out)
    if not model.is_file():
        raise FileNotFoundError(f"no model at {model}; write one with `{tool_command('export')}`")
    if model.suffix not in RUNTIMES:
        raise ValueError(
            f"{model} has no int8 form here; give a file that ends in {' or '.join(RUNTIMES)}"
        )
    if not max_drop >= 0:
        raise ValueError(f"max_drop must be a number of points, at least 0, found {max_drop}")
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, found {scheme!r}")
    runtime = RUNTIMES[model.suffix]
    files = runtime.target.files(out)
    check_writable(files, overwrite, runtime.target.files(model))
    runtime.require()
    calibration = Samples(cfg, "train", calibration_images)
    test = Samples(cfg, "test", test_images)
    with appearing_together(files, overwrite) as aside:
        progress("quantising")
        try:
            runtime.quantize(
                model,
                aside[0],
                calibration.images(),
                per_channel=scheme == "channel",
                keep_float=keep_float,
            )
        except OSError as error:  # the libraries name a file of their own
            raise OSError(error.errno, error.strerror or str(error), str(out)) from error
        progress("testing")
        forms = {"fp32": runtime.form(model), "int8": runtime.form(aside[0])}
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
