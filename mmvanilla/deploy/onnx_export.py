"""Export to ONNX, by torch's exporter through TorchScript."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmvanilla.deploy.exporting import INPUT_NAME, Format, Job
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


ONNX = Format("onnx", ".onnx", "ONNX Runtime", ("onnx", "onnxruntime"), write_onnx, open_onnx)
