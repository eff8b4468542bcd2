"""Export to ONNX and verify against PyTorch."""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.deploy.exportable import Exportable
from mmvanilla.deploy.exporting import (
    DEFAULT_TOLERANCE,
    INPUT_NAME,
    ExportReport,
    Format,
    Job,
    export_model,
)
from mmvanilla.deploy.onnx_runtime import open_onnx, require_onnx

EXPORTERS = ("torchscript", "dynamo")
# The newest opset that the exporters of all supported torch versions write.
_OPSET = 17


def onnx_format(exporter: str = "torchscript") -> Format:
    """Describe the format ONNX, as written by one of torch's exporters.

    Args:
        exporter: Name of torch's exporter: ``'torchscript'`` (default), which gives the same graph
            in all supported versions of torch, or ``'dynamo'``, which needs onnxscript and a newer
            version of torch.

    Raises:
        ValueError: The exporter is unknown.
    """
    if exporter not in EXPORTERS:
        raise ValueError(f"unknown exporter {exporter!r}; choose from {', '.join(EXPORTERS)}")
    return Format(
        "onnx",
        ".onnx",
        "ONNX Runtime",
        require_onnx,
        partial(write_onnx, exporter=exporter),
        open_onnx,
        has_fp16=True,
        has_runner=True,
    )


def export_onnx(
    model: nn.Module,
    out: str | Path,
    *,
    exporter: str = "torchscript",
    tolerance: float | None = DEFAULT_TOLERANCE,
    **options: Any,
) -> ExportReport:
    """Fuse a model, export it, compare ONNX Runtime with PyTorch, and write the file if they agree.

    Args:
        model: A model in eval mode, which is not changed.
        out: Path of the ``.onnx`` file to write.
        exporter: Name of torch's exporter, as in :func:`onnx_format`.
        tolerance: Largest difference allowed, relative to each output's maximum.
        **options: Further arguments of :func:`mmvanilla.deploy.exporting.export_model`, which
            describes the errors, too.
    """
    return export_model(model, out, onnx_format(exporter), tolerance=tolerance, **options)


def write_onnx(job: Job, path: Path, exporter: str = "torchscript") -> dict[str, int]:
    """Write a model as ONNX, with its metadata, and count the graph's nodes by type.

    Args:
        job: What to write.
        path: Path of the file.
        exporter: Name of torch's exporter, as in :func:`onnx_format`.
    """
    import onnx

    _run_exporter(job.exportable, job.example, path, job.dynamic, exporter)
    graph = onnx.load(str(path))
    put_pooling_last(graph)
    if job.fp16:
        graph = _to_half(graph)
    onnx.helper.set_model_props(graph, job.metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))
    return dict(Counter(node.op_type for node in graph.graph.node))


def put_pooling_last(model: Any) -> int:
    """Exchange every max pooling and the ReLU that alone takes its output, in place.

    Both orders give the same values, since ReLU never decreases. Behind the pooling, ReLU keeps
    runtimes from pooling in int8; before it, it becomes a part of the convolution.

    Args:
        model: An ``onnx.ModelProto``.

    Returns:
        The number of pairs exchanged.
    """
    graph = model.graph
    takers = Counter(name for node in graph.node for name in node.input)
    takers.update(output.name for output in graph.output)
    pools = {node.output[0]: node for node in graph.node if node.op_type == "MaxPool"}
    exchanged = 0
    for relu in [node for node in graph.node if node.op_type == "Relu"]:
        pool = pools.get(relu.input[0])
        if pool is None or takers[pool.output[0]] != 1 or len(pool.output) != 1:
            continue
        between = pool.output[0]
        relu.input[0], pool.output[0] = pool.input[0], relu.output[0]
        pool.input[0] = relu.output[0] = between
        # Nodes stand in the order in which they run.
        places = [list(graph.node).index(node) for node in (pool, relu)]
        first, second = (type(pool).FromString(n.SerializeToString()) for n in (relu, pool))
        graph.node[places[0]].CopyFrom(first)
        graph.node[places[1]].CopyFrom(second)
        exchanged += 1
    return exchanged


def _to_half(graph: Any) -> Any:
    """Convert a model to half precision inside, with float32 inputs and outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights near 0, which the comparison judges
        halved = OnnxModel(convert_float_to_float16(graph, keep_io_types=True))
    halved.topological_sort()  # the casts of the inputs were put last
    return halved.model


def _run_exporter(
    exportable: Exportable, example: Tensor, path: Path, dynamic: bool, exporter: str
) -> None:
    make_options = _dynamo_options if exporter == "dynamo" else _torchscript_options
    options = make_options(exportable, dynamic)
    # The tracer warns of every shape that Python looks at (the comparison afterwards decides), and
    # prints its whole graph before an error.
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                exportable.module,
                (example,),
                str(path),
                input_names=[INPUT_NAME],
                output_names=list(exportable.output_names),
                **options,
            )
        except OSError as error:  # for example, the disk is full
            raise OSError(error.errno, error.strerror, str(path)) from error
        except Exception as error:  # the exporters' errors have no common class
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RuntimeError(
                f"torch's {exporter} exporter cannot export this: {reason}"
            ) from error


def _torchscript_options(exportable: Exportable, dynamic: bool) -> dict[str, Any]:
    axes: dict[str, dict[int, str]] = {INPUT_NAME: {0: "batch"}}
    if dynamic:
        axes[INPUT_NAME].update({2: "height", 3: "width"})
    for name in exportable.output_names:
        axes[name] = {0: "batch"}
        if dynamic and exportable.has_maps:
            axes[name].update({2: f"{name}_height", 3: f"{name}_width"})
    options: dict[str, Any] = dict(opset_version=_OPSET, dynamic_axes=axes)
    # torch 2.1 has one exporter and no such argument; from 2.9 on the other one is the default.
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    return options


def _dynamo_options(exportable: Exportable, dynamic: bool) -> dict[str, Any]:
    parameters = inspect.signature(torch.onnx.export).parameters
    if "dynamo" not in parameters or "dynamic_shapes" not in parameters:
        raise ValueError(
            f"torch {torch.__version__} has no dynamo exporter of this kind; use torchscript"
        )
    auto = torch.export.Dim.DYNAMIC
    axes = {0: auto, 2: auto, 3: auto} if dynamic else {0: auto}
    return dict(dynamo=True, dynamic_shapes=(axes,), external_data=False, verbose=False)
