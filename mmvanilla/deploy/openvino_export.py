"""Export to OpenVINO, by way of ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmvanilla.deploy.exporting import Format, Job
from mmvanilla.deploy.onnx_export import write_onnx
from mmvanilla.deploy.runner_runtimes import open_openvino


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


OPENVINO = Format(
    "openvino", ".xml", "OpenVINO", ("openvino", "onnx"), write_openvino, open_openvino, (".bin",)
)
