"""Export to ONNX and verify against PyTorch."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import math
import os
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
from mmvanilla.utils.scratch import scratch_folder
from mmvanilla.version import __version__

EXPORTERS = ("torchscript", "dynamo")
DEFAULT_TOLERANCE = 1e-4
# The newest opset that the exporters of all supported torch versions write.
_OPSET = 17


@dataclass(frozen=True)
class ExportReport:
    """The result of :func:`export_onnx`.

    Attributes:
        path: Path of the file that was written.
        part: Exported part: ``'backbone'``, ``'classifier'`` or ``'segmenter'``.
        output_names: Names of the graph's outputs.
        dynamic: True if the file accepts any height and width (it accepts any batch size).
        node_counts: Number of nodes of each type in the graph.
        max_difference: Largest difference from PyTorch, relative to each output's maximum.
        compared_shapes: Shapes of the inputs that were compared, (N, C, H, W).
        size_bytes: Size of the file in bytes.
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
    """Fuse a model, export it, compare ONNX Runtime with PyTorch, and write the file if they agree.

    The graph takes normalised images. The work of the model's data preprocessor (channel order,
    mean, std) is not in the graph, but described in the file's ``metadata_props`` under
    ``preprocessing``, as JSON.

    Args:
        model: A model in eval mode, which is not changed.
        out: Path of the ``.onnx`` file to write.
        size: Height and width in pixels to export with; without ``dynamic`` the only ones.
        part: Part to export, as in :func:`mmvanilla.deploy.onnx_module.make_exportable`.
        softmax: Whether a classifier gives probabilities instead of logits. Default: False.
        full_size: Whether a segmenter gives logits at the size of the input instead of that of its
            head. Default: False.
        dynamic: Whether the file accepts any height and width, if the model does. Default: True.
        exporter: Name of torch's exporter: ``'torchscript'`` (default), which gives the same graph
            in all supported versions of torch, or ``'dynamo'``, which needs onnxscript and a newer
            version of torch.
        tolerance: Largest difference allowed, relative to each output's maximum.
        overwrite: Whether to replace an existing file. Default: False.
        metadata: More entries for the file's ``metadata_props``.
        progress: Function that is called with the name of each step.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is False.
        FileNotFoundError: The folder of ``out`` does not exist.
        ImportError: onnx or onnxruntime is not installed.
        ValueError: An option does not fit the model, or a size is below 1.
        RuntimeError: ONNX Runtime disagrees with PyTorch, or cannot run the file.
    """
    out = Path(out)
    check_out(out, overwrite)
    if min(size) < 1:
        raise ValueError(f"height and width must be at least 1, found {size[0]} and {size[1]}")
    if exporter not in EXPORTERS:
        raise ValueError(f"unknown exporter {exporter!r}; choose from {', '.join(EXPORTERS)}")
    require_onnx()
    progress("fusing")
    exportable = make_exportable(model, part, softmax, full_size)
    if exportable.fixed_size is not None:
        size, dynamic = exportable.fixed_size, False
    in_channels = _in_channels(exportable.module)
    shapes = compared_shapes(in_channels, size, dynamic)
    # In a scratch folder beside the target, so that moving the file to its place is one step.
    with scratch_folder(out.parent, "exporting") as folder:
        aside = folder / out.name
        progress("exporting")
        example = random_images((2, in_channels, *size), seed=0)
        _run_exporter(exportable, example, aside, dynamic, exporter)
        node_counts = _describe(aside, _metadata(model, exportable, size, dynamic, metadata))
        progress("comparing")
        difference = _compare(aside, exportable, shapes, tolerance)
        progress("writing")
        os.replace(aside, out)
    return ExportReport(
        out,
        exportable.part,
        exportable.output_names,
        dynamic,
        node_counts,
        difference,
        shapes,
        out.stat().st_size,
    )


def _describe(path: Path, metadata: dict[str, str]) -> dict[str, int]:
    """Check a file, write metadata into it, and count its nodes by type."""
    import onnx

    graph = onnx.load(str(path))
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))
    return dict(Counter(node.op_type for node in graph.graph.node))


def _compare(
    path: Path, exportable: Exportable, shapes: tuple[tuple[int, ...], ...], tolerance: float
) -> float:
    difference = compare_with_torch(path, exportable.module, shapes)
    if math.isnan(difference):
        raise RuntimeError(
            "an output holds NaN, so PyTorch and ONNX Runtime cannot be compared, and nothing was "
            "written; check for NaN or overflow in the model's weights"
        )
    if not difference <= tolerance:  # written with `not` so that a tolerance of NaN fails
        raise RuntimeError(
            f"ONNX Runtime's outputs differ from PyTorch's by {difference:.2g} of their "
            f"maximum, more than {tolerance:g}; nothing was written"
        )
    return difference


def _in_channels(module: nn.Module) -> int:
    first = next(child for child in module.modules() if isinstance(child, nn.Conv2d))
    return first.in_channels


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
