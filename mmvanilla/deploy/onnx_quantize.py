"""Quantise a fused classifier in ONNX to int8: static quantisation with ONNX Runtime."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from mmvanilla.analysis.timing import Timing, time_interleaved
from mmvanilla.deploy.exporting import INPUT_NAME, check_out
from mmvanilla.deploy.onnx_runtime import open_session, require_onnx
from mmvanilla.utils.scratch import scratch_folder

_DATA_SCOPE = "mmpretrain"


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

    The weights of all layers become int8 (symmetric, with one scale for each channel). Activations
    become uint8, with the ranges that they have on calibration images of the training split.

    Args:
        cfg: Config of the classifier, for its data sets.
        model: Path of the fp32 file that ``tools/export_onnx.py`` wrote for it.
        out: Path of the ``.onnx`` file to write.
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
        ValueError: The config is not a classifier's, a number of images is below 1, or ``out`` is
            ``model``.
        ImportError: onnx or onnxruntime is not installed.
    """
    model, out = Path(model), Path(out)
    if not model.is_file():
        raise FileNotFoundError(f"no model at {model}; write one with tools/export_onnx.py")
    check_out(out, ".onnx", overwrite, [model])
    require_onnx()
    calibration = _Samples(cfg, "train", calibration_images)
    test = _Samples(cfg, "test", test_images)
    with scratch_folder(out.parent, "quantizing") as folder:
        progress("quantising")
        aside = folder / out.name
        quantize_file(model, aside, (image for image, _ in calibration))
        progress("testing")
        forms = _measure({"fp32": model, "int8": aside}, test, rounds)
        os.replace(aside, out)
    return forms


def quantize_file(model: str | Path, out: str | Path, images: Iterable[np.ndarray]) -> None:
    """Quantise all layers of an ONNX file to int8, with one weight scale for each channel.

    Args:
        model: Path of the fp32 ``.onnx`` file.
        out: Path of the ``.onnx`` file to write.
        images: Normalised images to calibrate with, each of shape (1, C, H, W).
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT_NAME: image}

    prepared = Path(out).with_suffix(".prepared.onnx")
    # Symbolic shape inference does not support every dynamic size, and ONNX's own inference is
    # enough. If the optimiser fails, it prints a traceback and continues, so its log is silenced.
    logging.getLogger(quant_pre_process.__module__).setLevel(logging.CRITICAL)
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    prepared.unlink()


def _measure(paths: dict[str, Path], test: _Samples, rounds: int) -> list[QuantizedForm]:
    sessions = {name: open_session(path, torch.get_num_threads()) for name, path in paths.items()}
    labels: list[int] = []
    collected: dict[str, list[np.ndarray]] = {name: [] for name in paths}
    image = None
    for image, label in test:
        labels.append(label)
        for name, session in sessions.items():
            collected[name].append(session.run(None, {INPUT_NAME: image})[0][0])
    runs: dict[str, Callable[[], Any]] = {
        name: partial(session.run, None, {INPUT_NAME: image}) for name, session in sessions.items()
    }
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
                path.stat().st_size,
            )
        )
    return forms
