"""From a trained model to an ONNX file that was seen to compute the same."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.apis.images import describe_preprocessing
from mmvanilla.deploy.onnx_module import Exportable, make_exportable
from mmvanilla.deploy.onnx_runtime import (
    INPUT_NAME,
    check_out,
    compare_with_torch,
    compared_shapes,
    random_images,
    require_onnx,
)
from mmvanilla.version import __version__

EXPORTERS = ("torchscript", "dynamo")


DEFAULT_TOLERANCE = 1e-4


# The newest one that the exporter of either supported torch writes.
OPSET = 17


@dataclass(frozen=True)
class ExportReport:
    """What :func:`export_onnx` did.

    Attributes:
        path: The file written.
        part: ``'backbone'``, ``'classifier'`` or ``'segmenter'``.
        output_names: Of the graph.
        dynamic: Whether height and width are open (the batch always is).
        node_counts: How many nodes of each type the graph has.
        max_difference: Largest difference from PyTorch, relative to each output's maximum.
        compared_shapes: The inputs on which both were run, (N, C, H, W).
        size_bytes: Of the file.
    """

    path: Path
    part: str
    output_names: tuple[str, ...]
    dynamic: bool
    node_counts: dict[str, int]
    max_difference: float
    compared_shapes: tuple[tuple[int, ...], ...]
    size_bytes: int


def export_onnx(
    model: nn.Module,
    out: str | Path,
    *,
    size: tuple[int, int] = (224, 224),
    part: str | None = None,
    softmax: bool = False,
    full_size: bool = False,
    dynamic: bool = True,
    exporter: str = "torchscript",
    tolerance: float = DEFAULT_TOLERANCE,
    overwrite: bool = False,
    metadata: dict[str, str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> ExportReport:
    """Fuse a model, export it, run the file in ONNX Runtime, compare, and only then keep it.

    The graph takes images that are normalised already: what the model's data preprocessor does
    (channel order, mean, std) is not inside, but written into the file's ``metadata_props`` under
    ``preprocessing``, as JSON.

    Args:
        model: In eval mode; it stays as it is.
        out: The ``.onnx`` file to write.
        size: Height and width in pixels to export with; the only ones where not ``dynamic``.
        part: What to export, as :func:`mmvanilla.deploy.onnx_module.make_exportable` has it.
        softmax: A classifier's output: probabilities instead of logits.
        full_size: A segmenter's output: logits at the input's size instead of the head's.
        dynamic: Leave height and width open. A model that serves one size only stays at it.
        exporter: ``'torchscript'`` (default: the same graph from every supported torch) or
            ``'dynamo'``, the one that torch is moving to (it needs onnxscript and a torch that
            has it).
        tolerance: Largest difference allowed, relative to each output's maximum.
        overwrite: Replace an existing file.
        metadata: More entries for the file's ``metadata_props``.
        progress: Called with the name of each step.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is False.
        FileNotFoundError: There is no folder for ``out``.
        ImportError: onnx or onnxruntime is not installed.
        ValueError: An option that does not fit the model.
        RuntimeError: ONNX Runtime disagrees with PyTorch, or cannot run the file.
    """
    out = Path(out)
    check_out(out, overwrite)
    require_onnx()
    progress("fusing")
    exportable = make_exportable(model, part, softmax, full_size)
    if exportable.fixed_size is not None:
        size, dynamic = exportable.fixed_size, False
    in_channels = _in_channels(exportable.module)
    shapes = compared_shapes(in_channels, size, dynamic)

    import onnx

    # Beside the target, so that moving it there is one step; gone again whatever happens.
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=out.parent) as folder:
        aside = Path(folder) / out.name
        progress("exporting")
        example = random_images((2, in_channels, *size), seed=0)
        _run_exporter(exportable, example, aside, dynamic, exporter)
        graph = onnx.load(str(aside))
        onnx.helper.set_model_props(graph, _metadata(model, exportable, size, dynamic, metadata))
        onnx.checker.check_model(graph)
        onnx.save(graph, str(aside))
        progress("comparing")
        difference = compare_with_torch(aside, exportable.module, shapes)
        # A NaN compares as False either way, so ask for what is wanted.
        if not difference <= tolerance:
            raise RuntimeError(
                f"ONNX Runtime's outputs differ from PyTorch's by {difference:.2g} of their "
                f"maximum, more than {tolerance:g}; nothing was written"
            )
        progress("writing")
        os.replace(aside, out)
    return ExportReport(
        out,
        exportable.part,
        exportable.output_names,
        dynamic,
        dict(Counter(node.op_type for node in graph.graph.node)),
        difference,
        shapes,
        out.stat().st_size,
    )


def _in_channels(module: nn.Module) -> int:
    first = next(child for child in module.modules() if isinstance(child, nn.Conv2d))
    return first.in_channels


def _run_exporter(
    exportable: Exportable, example: Tensor, path: Path, dynamic: bool, exporter: str
) -> None:
    if exporter not in EXPORTERS:
        raise ValueError(f"exporter must be one of {', '.join(EXPORTERS)}, found {exporter!r}")
    # torch 2.1 has one exporter and no such argument; from 2.9 on the other one is the default.
    parameters = inspect.signature(torch.onnx.export).parameters
    has_dynamo = "dynamo" in parameters and "dynamic_shapes" in parameters
    options: dict[str, Any] = dict(
        input_names=[INPUT_NAME], output_names=list(exportable.output_names)
    )
    if exporter == "dynamo":
        if not has_dynamo:
            raise ValueError(
                f"torch {torch.__version__} has no dynamo exporter of this kind; use torchscript"
            )
        auto = torch.export.Dim.DYNAMIC
        axes = {0: auto, 2: auto, 3: auto} if dynamic else {0: auto}
        options.update(dynamo=True, dynamic_shapes=(axes,), external_data=False, verbose=False)
    else:
        if "dynamo" in parameters:
            options["dynamo"] = False
        axes_of = {INPUT_NAME: (True, "height", "width")}
        for name, spatial in zip(exportable.output_names, exportable.spatial_outputs, strict=True):
            axes_of[name] = (spatial, f"{name}_height", f"{name}_width")
        options.update(
            opset_version=OPSET,
            dynamic_axes={
                name: {0: "batch", **({2: height, 3: width} if spatial and dynamic else {})}
                for name, (spatial, height, width) in axes_of.items()
            },
        )
    # The tracer warns of every shape that Python looks at (the comparison afterwards decides), and
    # prints its whole graph before an error.
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(exportable.module, (example,), str(path), **options)
        except Exception as error:  # the exporters' errors share no class
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RuntimeError(
                f"torch's {exporter} exporter cannot export this: {reason}"
            ) from error


def _metadata(
    model: nn.Module,
    exportable: Exportable,
    size: tuple[int, int],
    dynamic: bool,
    more: dict[str, str] | None,
) -> dict[str, str]:
    return {
        "mmvanilla_version": __version__,
        "part": exportable.part,
        "outputs": ",".join(exportable.output_names),
        "input_size": "any" if dynamic else f"{size[0]}x{size[1]}",
        "preprocessing": json.dumps(describe_preprocessing(model)),
        **(more or {}),
    }
