"""Quantise an OpenVINO model to int8, with NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mmvanilla.deploy.onnx_quantize import check_layers
from mmvanilla.deploy.openvino_export import save_model
from mmvanilla.deploy.runner_runtimes import read_rt_info


def quantize_openvino(
    model: Path,
    out: Path,
    images: Iterable[np.ndarray],
    *,
    per_channel: bool = True,
    keep_float: Sequence[str] = (),
) -> None:
    """Quantise an ``.xml`` file and its ``.bin`` file, as ``quantize_onnx`` does an ONNX file."""
    import nncf
    import openvino
    from nncf.quantization import advanced_parameters as advanced

    samples = list(images)
    nncf.set_log_level(logging.ERROR)
    read = openvino.Core().read_model(str(model))
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    layers = [op.get_friendly_name() for op in read.get_ops() if op.get_type_name() in kinds]
    check_layers(model, keep_float, layers)
    weights = advanced.QuantizationParameters(per_channel=per_channel)
    parameters = advanced.AdvancedQuantizationParameters(weights_quantization_params=weights)
    with contextlib.redirect_stdout(io.StringIO()):  # of its progress bars
        quantized = nncf.quantize(
            read,
            nncf.Dataset(samples),
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=list(keep_float)),
            advanced_parameters=parameters,
        )
    save_model(quantized, out, read_rt_info(read))
