"""Export to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmvanilla.deploy.exporting import INPUT_NAME, Format, Job
from mmvanilla.deploy.runner_runtimes import open_onnx

EXPORTERS = ("torchscript", "dynamo")
_OPSET = 17


def write_onnx(job: Job, path: Path, exporter: str = "torchscript") -> None:
    """Write a model as ONNX, with its metadata, by one of torch's :data:`EXPORTERS`."""
    import onnx

    options = _dynamo_options(job) if exporter == "dynamo" else _torchscript_options(job)
    torch.onnx.export(
        job.exportable.module,
        (job.example,),
        str(path),
        input_names=[INPUT_NAME],
        output_names=list(job.exportable.output_names),
        **options,
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


def _torchscript_options(job: Job) -> dict[str, Any]:
    axes: dict[str, dict[int, str]] = {INPUT_NAME: {0: "batch"}}
    if job.dynamic:
        axes[INPUT_NAME].update({2: "height", 3: "width"})
    for name in job.exportable.output_names:
        axes[name] = {0: "batch"}
        if job.dynamic and job.exportable.has_maps:
            axes[name].update({2: f"{name}_height", 3: f"{name}_width"})
    return dict(dynamo=False, opset_version=_OPSET, dynamic_axes=axes)


def _dynamo_options(job: Job) -> dict[str, Any]:
    auto = torch.export.Dim.DYNAMIC
    axes = {0: auto, 2: auto, 3: auto} if job.dynamic else {0: auto}
    return dict(dynamo=True, dynamic_shapes=(axes,), external_data=False, verbose=False)


ONNX = Format(
    "onnx",
    ".onnx",
    "ONNX Runtime",
    ("onnx", "onnxruntime", "onnxscript"),
    write_onnx,
    lambda path: open_onnx(path)[0],
    has_runner=True,
)
