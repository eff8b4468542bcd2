"""Measure what fewer bits cost a trained classifier: fp16, bf16 and int8."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from mmvanilla.apis.model import TensorModel, load_model
from mmvanilla.deploy.accuracy import Form, MeasuredForm, Samples, measure_forms
from mmvanilla.deploy.exporting import export_model
from mmvanilla.deploy.onnx_quantize import list_layers
from mmvanilla.deploy.quantize import RUNTIMES, Runtime
from mmvanilla.models.fusion import count_fusable, fuse_model

#: Numbers of calibration images to compare.
CALIBRATIONS = (128, 512, 2000)
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

Progress = Callable[[str], None]


def compare_precisions(
    cfg: Config,
    checkpoint: str,
    *,
    calibrations: Sequence[int] = CALIBRATIONS,
    test_images: int | None = None,
    rounds: int = 30,
    by_layer: bool = False,
    progress: Progress = lambda step: None,
) -> list[MeasuredForm]:
    """Fuse a classifier and measure it in fp32, fp16, bf16 and int8.

    The forms are: PyTorch in fp32, as trained if the checkpoint is, and fused; the fused network in
    fp16 and bf16, cast as a whole and under autocast; ONNX
    Runtime in fp32; and int8, quantised statically by ONNX Runtime with each number of calibration
    images, with one weight scale for each channel or one for each layer; and OpenVINO's fp32 and
    int8, if OpenVINO and NNCF are installed. Forms that this CPU or this torch cannot run are left
    out.

    Args:
        cfg: Config of the classifier, for its model and its data sets.
        checkpoint: Path or address of the checkpoint, trained or fused.
        calibrations: Numbers of images of the training split to calibrate with, each at least 1.
        test_images: Number of images of the test split to measure on, at least 1. None: all.
        rounds: Number of timed runs of each form on one image, at least 2. 0: no latency.
        by_layer: Whether to measure only which layer costs how much: each alone in int8, beside
            fp32. Default: False.
        progress: Function that is called with the name of each step.

    Returns:
        Measurements of each form. The first one, with which the others are compared, is the network
        as it is in the checkpoint (or, by layer, ONNX Runtime's fp32).

    Raises:
        ValueError: The config is not a classifier's, a number of images is below 1, there is no
            number of calibration images, or there is one round.
        FileNotFoundError: The checkpoint does not exist.
        RuntimeError: The weights do not fit, or an exported file disagrees with PyTorch.
        ImportError: ONNX Runtime is not installed.
    """
    if not calibrations or rounds == 1 or rounds < 0:
        raise ValueError(
            "there must be a number of calibration images, and no or at least 2 rounds, found "
            f"{list(calibrations)} and {rounds}"
        )
    test = Samples(cfg, "test", test_images)
    calibration = {count: Samples(cfg, "train", count) for count in sorted(set(calibrations))}
    model, _ = load_model(cfg, checkpoint)
    fused = fuse_model(model)
    image, _ = next(iter(test))
    size = (image.shape[-2], image.shape[-1])
    with TemporaryDirectory() as name:
        export = partial(_file_forms, fused, Path(name), size, progress=progress)
        if by_layer:
            forms = export(".onnx", partial(_layers_alone, calibration[max(calibration)]))
        else:
            forms = {}
            if count_fusable(model):
                forms["PyTorch fp32, as trained"] = _fp32_form(model)
            forms |= _torch_forms(fused, image) | export(".onnx", partial(_scales, calibration))
            if _is_installed(RUNTIMES[".xml"]):
                forms |= export(".xml", partial(_counts, calibration))
        progress("testing")
        measured = measure_forms(forms, test, rounds)
        forms.clear()  # OpenVINO keeps files open
    return measured


@torch.no_grad()
def _run(net: nn.Module, dtype: torch.dtype, images: np.ndarray) -> np.ndarray:
    return net(torch.from_numpy(images).to(dtype)).float().numpy()


def _fp32_form(model: nn.Module) -> Form:
    net = TensorModel(model, "logits").eval()
    weights = sum(value.numel() for value in net.state_dict().values())
    return Form(partial(_run, net, torch.float32), 4 * weights)


def _torch_forms(fused: nn.Module, image: np.ndarray) -> dict[str, Form]:
    net = TensorModel(fused, "logits").eval()
    whole = _fp32_form(fused)

    @torch.no_grad()
    def run_autocast(dtype: torch.dtype, images: np.ndarray) -> np.ndarray:
        with torch.autocast("cpu", dtype):
            return net(torch.from_numpy(images)).float().numpy()

    forms = {"PyTorch fp32, fused": whole}
    for name, dtype in _DTYPES.items():
        cast = copy.deepcopy(net).to(dtype)
        forms[f"PyTorch {name}, cast"] = Form(partial(_run, cast, dtype), whole.size_bytes // 2)
        forms[f"PyTorch {name}, autocast"] = Form(partial(run_autocast, dtype), whole.size_bytes)
    return {name: form for name, form in forms.items() if _runs(form, image)}


def _runs(form: Form, image: np.ndarray) -> bool:
    try:
        form.run(image)
    except RuntimeError:  # fp16 is not implemented for every CPU and every torch
        return False
    return True


#: The int8 files to write: by name, the images to calibrate with and the options of `quantize`.
Variants = dict[str, tuple[Samples, dict[str, Any]]]


def _file_forms(
    fused: nn.Module,
    folder: Path,
    size: tuple[int, int],
    suffix: str,
    variants: Callable[[Path], Variants],
    progress: Progress,
) -> dict[str, Form]:
    """Export a network, and quantise it in each way that ``variants`` names for the file."""
    runtime = RUNTIMES[suffix]
    progress(f"exporting {suffix}")
    full = folder / f"net{suffix}"
    export_model(fused, full, runtime.target, size=size)
    forms = {f"{runtime.target.runtime} fp32": runtime.form(full)}
    for index, (variant, (samples, options)) in enumerate(variants(full).items()):
        progress(f"quantising: {variant}")
        path = folder / f"int8_{index}{suffix}"
        runtime.quantize(full, path, samples.images(), **options)
        forms[variant] = runtime.form(path)
    return forms


def _scales(calibration: dict[int, Samples], full: Path) -> Variants:
    return {
        f"ONNX Runtime int8, {count} images, a scale a {scale}": (samples, options)
        for count, samples in calibration.items()
        for scale, options in (("channel", {}), ("layer", {"per_channel": False}))
    }


def _counts(calibration: dict[int, Samples], full: Path) -> Variants:
    return {
        f"OpenVINO int8, {count} images, a scale a channel": (samples, {})
        for count, samples in calibration.items()
    }


def _layers_alone(samples: Samples, full: Path) -> Variants:
    return {layer: (samples, {"only": [layer]}) for layer in list_layers(full)}


def _is_installed(runtime: Runtime) -> bool:
    try:
        runtime.require()
    except ImportError:
        return False
    return True
