"""Export to OpenVINO, by way of ONNX."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mmvanilla.deploy.exporting import Format, Job
from mmvanilla.deploy.onnx_export import write_onnx
from mmvanilla.deploy.onnx_runtime import require_onnx
from mmvanilla.deploy.openvino_runtime import open_openvino, require_openvino, save_model


def _require() -> None:
    require_openvino()
    require_onnx()


def write_openvino(job: Job, path: Path) -> dict[str, int]:
    """Write a model for OpenVINO, with its metadata, and count the graph's nodes by type.

    The ONNX graph is the one that has been tested most, so OpenVINO converts that.
    """
    import openvino

    between = path.with_suffix(".onnx")
    write_onnx(job._replace(fp16=False), between)
    model = openvino.convert_model(str(between))
    between.unlink()
    save_model(model, path, job.metadata, job.fp16)
    counts = Counter(node.get_type_name() for node in model.get_ops())
    uncounted = ("Parameter", "Constant", "Result")
    return {name: count for name, count in counts.items() if name not in uncounted}


OPENVINO = Format(
    "openvino",
    ".xml",
    "OpenVINO",
    _require,
    write_openvino,
    open_openvino,
    companions=(".bin",),
    has_fp16=True,
    has_runner=True,
)
