"""Quantise an exported classifier to int8, and measure accuracy and latency before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from mmvanilla.analysis.timing import Timing, time_interleaved
from mmvanilla.checkpoints.writing import appearing_together
from mmvanilla.deploy.exporting import INPUT_NAME, Format, check_out
from mmvanilla.deploy.formats import FORMATS
from mmvanilla.deploy.onnx_quantize import quantize_file
from mmvanilla.deploy.onnx_runtime import open_session, require_onnx
from mmvanilla.deploy.openvino_quantize import quantize_openvino
from mmvanilla.deploy.openvino_runtime import compile_model, require_openvino
from mmvanilla.utils.paths import tool_command

_DATA_SCOPE = "mmpretrain"


class Runtime(NamedTuple):
    """How the files of one runtime are quantised and run.

    Attributes:
        target: Format of the files.
        require: Function that raises an ImportError, with the remedy, if something is missing.
        quantize: Function of the model's path, the path to write, and images to calibrate with.
        open: Function that opens a file with a number of threads, to run it on one image.
    """

    target: Format
    require: Callable[[], None]
    quantize: Callable[[Path, Path, Iterable[np.ndarray]], None]
    open: Callable[[Path, int], Callable[[np.ndarray], Any]]


@dataclass(frozen=True)
class QuantizedForm:
    """Accuracy, speed and size of one form of a model.

    Attributes:
        name: Name of the form, ``'fp32'`` or ``'int8'``.
        accuracy: Top-1 accuracy in %.
        agreement: Share of images in % whose predicted class is that of fp32.
        logit_error: Root mean square difference from the logits of fp32, in % of their root mean
            square.
        latency: Times for one image.
        size_bytes: Size of the file in bytes.
    """

    name: str
    accuracy: float
    agreement: float
    logit_error: float
    latency: Timing
    size_bytes: int


# The names of the numbers of images of each split, as arguments and on the command line.
_NAMES = {"train": "calibration_images", "test": "test_images"}


class _Samples:
    """Normalised images and labels of a config's data set, loaded with its test pipeline."""

    def __init__(self, cfg: Config, split: str, count: int | None) -> None:
        if count is not None and count < 1:
            raise ValueError(f"{_NAMES[split]} must be at least 1, found {count}")
        if cfg.get("default_scope") != _DATA_SCOPE:
            raise ValueError(
                f"only classifiers can be quantised; default_scope of this config is "
                f"{cfg.get('default_scope')!r}, expected {_DATA_SCOPE!r}"
            )
        init_default_scope(_DATA_SCOPE)
        dataset = dict(cfg[f"{split}_dataloader"].dataset)
        dataset["pipeline"] = cfg.test_dataloader.dataset.pipeline
        self.dataset = DATASETS.build(dataset)
        preprocessor = {"type": "ClsDataPreprocessor", **cfg.get("data_preprocessor", {})}
        self.preprocessor = MODELS.build(preprocessor)
        total = len(self.dataset)
        # Data sets are sorted by class, so choose images from all parts.
        chosen = total if count is None else min(count, total)
        self.indices = np.linspace(0, total - 1, chosen).round().astype(int)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        for index in self.indices:
            sample = self.dataset[int(index)]
            batch = dict(inputs=[sample["inputs"]], data_samples=[sample["data_samples"]])
            images = self.preprocessor(batch)["inputs"]
            yield images.numpy(), int(sample["data_samples"].gt_label)

    def __len__(self) -> int:
        return len(self.indices)


def quantize_classifier(
    cfg: Config,
    model: str | Path,
    out: str | Path,
    *,
    calibration_images: int = 128,
    test_images: int | None = None,
    rounds: int = 30,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> list[QuantizedForm]:
    """Quantise a classifier, measure accuracy and latency before and after, and write it.

    An ``.onnx`` file is quantised by ONNX Runtime, an ``.xml`` file by NNCF for OpenVINO. The
    weights of all layers become int8 (symmetric, with one scale for each channel). Activations
    become 8-bit integers, with the ranges that they have on calibration images of the training
    split. The metadata is kept.

    Args:
        cfg: Config of the classifier, for its data sets.
        model: Path of the fp32 file that ``mmvanilla export`` wrote for it, ``.onnx`` or ``.xml``.
        out: Path of the file to write, with the same suffix.
        calibration_images: Number of images of the training split to calibrate with, at least 1.
        test_images: Number of images of the test split to measure on, at least 1. None: all.
        rounds: Number of timed runs of each form, at least 2.
        overwrite: Whether to replace an existing file. Default: False.
        progress: Function that is called with the name of each step.

    Returns:
        Measurements of the fp32 form and of the int8 form.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is False.
        FileNotFoundError: The model or the folder of ``out`` does not exist.
        ValueError: The config is not a classifier's, a number of images is below 1, ``out`` is
            ``model``, or their suffixes differ or have no int8 form.
        ImportError: The runtime, or what quantises for it, is not installed.
    """
    model, out = Path(model), Path(out)
    if not model.is_file():
        raise FileNotFoundError(f"no model at {model}; write one with `{tool_command('export')}`")
    if model.suffix not in RUNTIMES:
        raise ValueError(
            f"{model} has no int8 form here; give a file that ends in {' or '.join(RUNTIMES)}"
        )
    runtime = RUNTIMES[model.suffix]
    target = runtime.target
    files = target.files(out)
    check_out(out, target.suffix, overwrite, target.files(model), files)
    runtime.require()
    calibration = _Samples(cfg, "train", calibration_images)
    test = _Samples(cfg, "test", test_images)
    with appearing_together(files, overwrite) as aside:
        progress("quantising")
        try:
            runtime.quantize(model, aside[0], (image for image, _ in calibration))
        except OSError as error:  # the libraries name a file of their own
            raise OSError(error.errno, error.strerror or str(error), str(out)) from error
        progress("testing")
        forms = _measure({"fp32": model, "int8": aside[0]}, runtime, test, rounds)
    return forms


def _open_onnx(path: Path, threads: int) -> Callable[[np.ndarray], Any]:
    session = open_session(path, threads)
    return lambda image: session.run(None, {INPUT_NAME: image})[0][0]


def _open_openvino(path: Path, threads: int) -> Callable[[np.ndarray], Any]:
    request = compile_model(path, threads).create_infer_request()
    return lambda image: request.infer([image]).to_tuple()[0][0]


#: The runtimes that have int8, by the suffixes of their files.
RUNTIMES: dict[str, Runtime] = {
    ".onnx": Runtime(FORMATS["onnx"], require_onnx, quantize_file, _open_onnx),
    ".xml": Runtime(
        FORMATS["openvino"], partial(require_openvino, "nncf"), quantize_openvino, _open_openvino
    ),
}


def _measure(
    paths: dict[str, Path], runtime: Runtime, test: _Samples, rounds: int
) -> list[QuantizedForm]:
    opened = {name: runtime.open(path, torch.get_num_threads()) for name, path in paths.items()}
    labels: list[int] = []
    collected: dict[str, list[np.ndarray]] = {name: [] for name in paths}
    image = np.empty(0, np.float32)
    for image, label in test:
        labels.append(label)
        for name, run in opened.items():
            collected[name].append(np.array(run(image)))
    runs: dict[str, Callable[[], Any]] = {name: partial(run, image) for name, run in opened.items()}
    timings = time_interleaved(runs, rounds)
    expected = np.stack(collected["fp32"])
    forms = []
    for name, path in paths.items():
        logits = np.stack(collected[name])
        classes = logits.argmax(axis=1)
        forms.append(
            QuantizedForm(
                name,
                100 * float(np.mean(classes == labels)),
                100 * float(np.mean(classes == expected.argmax(axis=1))),
                100 * float(np.sqrt(np.mean((logits - expected) ** 2) / np.mean(expected**2))),
                timings[name],
                sum(file.stat().st_size for file in runtime.target.files(path)),
            )
        )
    return forms
