"""ONNX, by torch's exporter through TorchScript; int8 by ONNX Runtime's static quantisation."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmvanilla.deploy.exporting import INPUT_NAME, Format, Job, QuantizeJob
from mmvanilla.deploy.runner_runtimes import open_onnx

_OPSET = 17


def write_onnx(job: Job, path: Path) -> None:
    """Write a model as ONNX, with its metadata."""
    import onnx

    names = job.exportable.output_names
    axes: dict[str, dict[int, str]] = {name: {0: "batch"} for name in (INPUT_NAME, *names)}
    if job.dynamic:
        axes[INPUT_NAME].update({2: "height", 3: "width"})
    if job.dynamic and job.exportable.part != "classifier":
        for name in names:
            axes[name].update({2: f"{name}_height", 3: f"{name}_width"})
    torch.onnx.export(
        job.exportable.module,
        (job.example,),
        str(path),
        input_names=[INPUT_NAME],
        output_names=list(names),
        dynamic_axes=axes,
        opset_version=_OPSET,
        dynamo=False,
    )
    graph = onnx.load(str(path))
    _name_weights_once(graph.graph)
    onnx.helper.set_model_props(graph, job.metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


def _name_weights_once(graph: Any) -> None:
    """Take out the Identity nodes that the exporter writes for weights of equal values."""
    weights = {weight.name for weight in graph.initializer}
    copies = [n for n in graph.node if n.op_type == "Identity" and n.input[0] in weights]
    names = {node.output[0]: node.input[0] for node in copies}
    for node in copies:
        graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def quantize_onnx(job: QuantizeJob, path: Path) -> None:
    """Make an int8 file by static quantisation of all layers."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(job.images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT_NAME: image}

    nodes = onnx.load(str(job.model), load_external_data=False).graph.node
    layers = [node.name for node in nodes if node.op_type in ("Conv", "Gemm", "MatMul")]
    scores = [node.name for node in nodes if node.op_type == "Softmax"]  # no steps of 1/255
    job.check_layers(layers)
    prepared = path.with_suffix(".prepared.onnx")
    # Symbolic shape inference does not support every dynamic size, and ONNX's own inference is
    # enough. If the optimiser fails, it prints a traceback and continues, so its log is silenced.
    logging.getLogger(quant_pre_process.__module__).setLevel(logging.CRITICAL)
    quant_pre_process(str(job.model), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=job.per_channel,
        nodes_to_exclude=[*job.keep_float, *scores],
    )
    prepared.unlink()


ONNX = Format(
    "onnx",
    ".onnx",
    "ONNX Runtime",
    ("onnx", "onnxruntime"),
    write_onnx,
    open_onnx,
    quantize=quantize_onnx,
    quantize_packages=("onnx", "onnxruntime"),
)
