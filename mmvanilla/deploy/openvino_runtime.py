"""Run OpenVINO's models, and read and write their metadata."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmvanilla.deploy.verification import RunFile

#: Where our entries stand in a model's rt_info.
RT_INFO = "mmvanilla"


def require_openvino(*also: str) -> None:
    """Check that OpenVINO is installed.

    Args:
        *also: Further packages that must be installed.

    Raises:
        ImportError: One of them is not installed.
    """
    # OpenVINO and NNCF would report each import to their makers; without this package they do not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    for name in ("openvino", *also):
        try:
            __import__(name)
        except ImportError as error:
            packages = " ".join(("openvino", *also))
            raise ImportError(
                f"{error.name or name} is not installed; run `pip install {packages}`"
            ) from error


def compile_model(path: str | Path, threads: int = 0, profiled_shape: Sequence[int] = ()) -> Any:
    """Load and compile a model for the CPU, in float32 where it is not quantised.

    Args:
        path: Path of an ``.xml`` or ``.onnx`` file.
        threads: Number of threads. 0 (default): OpenVINO chooses.
        profiled_shape: Shape of the images, (N, C, H, W), for which each request counts the time of
            its operators. Empty (default): any shape, and nothing is counted.

    Raises:
        ImportError: OpenVINO is not installed.
        RuntimeError: OpenVINO cannot load the file.
    """
    require_openvino()
    import openvino

    # On some CPUs OpenVINO would take bfloat16 by default.
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if profiled_shape:
        options["PERF_COUNT"] = True
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino.Core()
        model = core.read_model(str(path))
        if profiled_shape:
            model.reshape(list(profiled_shape))
        return core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or ["no details"])[-1]
        raise RuntimeError(f"OpenVINO cannot load {path}: {reason}") from error


def open_openvino(path: Path) -> RunFile:
    """Load a file to run it with tensors on the CPU."""
    request = compile_model(path).create_infer_request()
    return lambda images: [
        torch.from_numpy(output.copy()) for output in request.infer([images.numpy()]).to_tuple()
    ]


def save_model(model: Any, path: Path, metadata: dict[str, str], fp16: bool = False) -> None:
    """Write a model and its metadata to an ``.xml`` and a ``.bin`` file.

    Args:
        model: An ``openvino.Model``.
        path: Path of the ``.xml`` file.
        metadata: Entries by name.
        fp16: Whether to store the weights in half precision. Default: False.
    """
    import openvino

    for name, value in metadata.items():
        model.set_rt_info(value, [RT_INFO, name])
    openvino.save_model(model, str(path), compress_to_fp16=fp16)


def read_metadata(model: Any) -> dict[str, str]:
    """Read the entries that :func:`save_model` wrote; empty if there are none."""
    if not model.has_rt_info([RT_INFO]):
        return {}
    return {name: str(value) for name, value in model.get_rt_info([RT_INFO]).value.items()}
