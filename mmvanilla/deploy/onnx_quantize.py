"""From a fused classifier in ONNX to int8: static post-training quantisation by ONNX Runtime."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from mmvanilla.analysis.timing import Timing, time_interleaved
from mmvanilla.deploy.onnx_runtime import INPUT_NAME, check_out, open_session, require_onnx

#: What can be quantised: everything, or one kind of convolution to see what each kind costs.
SCHEMES: dict[str, str] = {
    "per_channel": "all layers, one weight scale a channel",
    "per_tensor": "all layers, one weight scale a layer",
    "pointwise_per_channel": "1x1 and stem convolutions only, one scale a channel",
    "pointwise_per_tensor": "1x1 and stem convolutions only, one scale a layer",
    "depthwise_per_channel": "depthwise convolutions only, one scale a channel",
    "depthwise_per_tensor": "depthwise convolutions only, one scale a layer",
}
_DATA_SCOPE = "mmpretrain"


@dataclass(frozen=True)
class QuantizedForm:
    """How one form of a model does.

    Attributes:
        name: ``'fp32'``, or one of :data:`SCHEMES`.
        accuracy: Top-1 in %.
        agreement: Images in % whose class is fp32's.
        logit_error: Root mean square difference from fp32's logits, in % of their own.
        latency: Of one image.
        size_bytes: Of the file.
    """

    name: str
    accuracy: float
    agreement: float
    logit_error: float
    latency: Timing
    size_bytes: int


class _Samples:
    """Normalised images and labels of a config's data set, by its test pipeline."""

    def __init__(self, cfg: Config, split: str, count: int | None) -> None:
        if cfg.get("default_scope") != _DATA_SCOPE:
            raise ValueError(
                f"quantisation is measured on classifiers; default_scope of this config is "
                f"{cfg.get('default_scope')!r}, expected {_DATA_SCOPE!r}"
            )
        init_default_scope(_DATA_SCOPE)
        dataset = dict(cfg[f"{split}_dataloader"].dataset)
        dataset["pipeline"] = cfg.test_dataloader.dataset.pipeline
        self.dataset = DATASETS.build(dataset)
        preprocessor = {"type": "ClsDataPreprocessor", **cfg.get("data_preprocessor", {})}
        self.preprocessor = MODELS.build(preprocessor)
        total = len(self.dataset)
        # Data sets are sorted by class: take from all over.
        chosen = min(count or total, total)
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
    scheme: str = "per_channel",
    compared: Sequence[str] = (),
    calibration_images: int = 128,
    test_images: int | None = None,
    rounds: int = 30,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> list[QuantizedForm]:
    """Quantise a classifier, measure accuracy and latency before and after, and write it.

    Weights become int8 (symmetric), activations uint8 with the ranges that calibration images of
    the training split have.

    Args:
        cfg: The classifier's config, for its data.
        model: What ``tools/export_onnx.py`` wrote for it, fp32.
        out: The ``.onnx`` file to write.
        scheme: One of :data:`SCHEMES`.
        compared: Other schemes to measure too; their files are not kept.
        calibration_images: So many images of the training split.
        test_images: So many images of the test split; None: all.
        rounds: How often each form is timed.
        overwrite: Replace an existing file.
        progress: Called with the name of each step.

    Returns:
        fp32 first, then ``scheme``, then each of ``compared``.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is False.
        FileNotFoundError: No such model, or no folder for ``out``.
        ValueError: No such scheme, no classifier, or nothing for the scheme to quantise.
        ImportError: onnx or onnxruntime is not installed.
    """
    model, out = Path(model), Path(out)
    schemes = list(dict.fromkeys((scheme, *compared)))
    for name in schemes:
        if name not in SCHEMES:
            raise ValueError(f"no scheme {name!r}; there are {', '.join(SCHEMES)}")
    if not model.is_file():
        raise FileNotFoundError(f"no model at {model}; write one with tools/export_onnx.py")
    check_out(out, overwrite)
    require_onnx()
    calibration = _Samples(cfg, "train", calibration_images)
    test = _Samples(cfg, "test", test_images)
    with tempfile.TemporaryDirectory(prefix=".quantizing-", dir=out.parent) as folder:
        paths = {"fp32": model}
        for name in schemes:
            progress(f"quantising, {name}")
            paths[name] = Path(folder) / f"{name}.onnx"
            quantize_file(model, paths[name], (image for image, _ in calibration), name)
        progress("testing")
        forms = _measure(paths, test, rounds)
        os.replace(paths[scheme], out)
    return forms


def quantize_file(
    model: str | Path, out: str | Path, images: Iterable[np.ndarray], scheme: str = "per_channel"
) -> None:
    """Quantise an ONNX file.

    Args:
        model: The fp32 ``.onnx`` file.
        out: The ``.onnx`` file to write.
        images: To calibrate with, each (1, C, H, W), normalised.
        scheme: One of :data:`SCHEMES`.

    Raises:
        ValueError: No such scheme, or nothing for it to quantise.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"no scheme {scheme!r}; there are {', '.join(SCHEMES)}")
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
    # The symbolic part of it does not take every open size; ONNX's own inference is enough here.
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    kind = scheme.removesuffix("per_channel").removesuffix("per_tensor").rstrip("_")
    nodes = None
    if kind:
        nodes = _convolutions(prepared, depthwise=kind == "depthwise")
        if not nodes:
            raise ValueError(f"{model} has no {kind} convolutions to quantise")
    quantize_static(
        str(prepared),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=scheme.endswith("per_channel"),
        nodes_to_quantize=nodes,
    )
    prepared.unlink()


def _convolutions(path: Path, depthwise: bool) -> list[str]:
    import onnx

    names = []
    for node in onnx.load(str(path)).graph.node:
        if node.op_type == "Conv":
            groups = next((item.i for item in node.attribute if item.name == "group"), 1)
            if (groups > 1) == depthwise:
                names.append(node.name)
    return names


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
