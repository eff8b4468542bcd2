"""OpenVINO, by way of ONNX; int8 by NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

from mmvanilla.deploy.exporting import Format, Job, QuantizeJob
from mmvanilla.deploy.formats.onnx import write_onnx
from mmvanilla.deploy.runner_runtimes import open_openvino, read_rt_info


def write_openvino(job: Job, path: Path) -> None:
    """Write a model for OpenVINO, with its metadata: the ONNX graph is what it converts best."""
    import openvino

    between = path.with_suffix(".onnx")
    write_onnx(job, between)
    model = openvino.convert_model(str(between))
    between.unlink()
    save_model(model, path, job.metadata)


def save_model(model: Any, path: Path, metadata: dict[str, str]) -> None:
    """Write an ``openvino.Model`` to an ``.xml`` and a ``.bin`` file, with metadata in rt_info."""
    import openvino

    for name, value in metadata.items():
        model.set_rt_info(value, ["mmvanilla", name])
    openvino.save_model(model, str(path), compress_to_fp16=False)


def quantize_openvino(job: QuantizeJob, path: Path) -> None:
    """Make an int8 file, an ``.xml`` and a ``.bin``."""
    import nncf
    import openvino
    from nncf.quantization import advanced_parameters as advanced

    samples = list(job.images)
    nncf.set_log_level(logging.ERROR)
    read = openvino.Core().read_model(str(job.model))
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    layers = [op.get_friendly_name() for op in read.get_ops() if op.get_type_name() in kinds]
    job.check_layers(layers)
    weights = advanced.QuantizationParameters(per_channel=job.per_channel)
    parameters = advanced.AdvancedQuantizationParameters(weights_quantization_params=weights)
    with contextlib.redirect_stdout(io.StringIO()):  # of its progress bars
        quantized = nncf.quantize(
            read,
            nncf.Dataset(samples),
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=list(job.keep_float)),
            advanced_parameters=parameters,
        )
    save_model(quantized, path, read_rt_info(read))


OPENVINO = Format(
    "openvino",
    ".xml",
    "OpenVINO",
    ("openvino", "onnx"),
    write_openvino,
    open_openvino,
    companions=(".bin",),
    quantize=quantize_openvino,
    quantize_packages=("openvino", "nncf"),
)
