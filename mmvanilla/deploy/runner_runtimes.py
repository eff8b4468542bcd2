"""Open an exported file in its own runtime, without PyTorch: a part of the runner."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: Runs a file: from normalised images, (N, C, H, W) float32, to all outputs in their order.
RunFile = Callable[[np.ndarray], Sequence[np.ndarray]]


def silence_telemetry() -> None:
    """Keep ONNX Runtime and OpenVINO from reporting their use to their makers."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def open_onnx(path: Path, device: str = "cpu", threads: int = 0) -> tuple[RunFile, dict[str, str]]:
    """Open an ``.onnx`` file in ONNX Runtime.

    Args:
        path: Path of the file.
        device: ``'cpu'`` (default), or another one by its name there, such as ``'cuda'``.
        threads: Number of threads within one operator. 0 (default): the runtime chooses.

    Returns:
        The function that runs it, and the metadata in the file.

    Raises:
        ImportError: The runtime is not installed.
        ValueError: The file cannot be loaded, or the device cannot be used.
    """
    silence_telemetry()
    import onnxruntime

    provider = f"{device.upper()}ExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"this onnxruntime has no {provider}; take another device, such as cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised, so they need not be printed
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # its errors have no common class
        raise ValueError(f"{path} cannot be loaded: {last_line(error)}") from error
    if provider not in session.get_providers():  # it would take the CPU, and only log that
        raise ValueError(f"onnxruntime does not find the libraries for {device}; install them")
    name = session.get_inputs()[0].name
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    return lambda images: session.run(None, {name: images}), metadata


def open_openvino(
    path: Path, device: str = "cpu", threads: int = 0
) -> tuple[RunFile, dict[str, str]]:
    """Open an ``.xml`` file, beside which its ``.bin`` file lies, as :func:`open_onnx` does."""
    silence_telemetry()
    import openvino

    options: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "cpu":  # on some it would take bfloat16 by default
        options["INFERENCE_PRECISION_HINT"] = "f32"
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        model = openvino.Core().read_model(str(path))
        request = openvino.compile_model(model, device.upper(), options).create_infer_request()
    except RuntimeError as error:
        raise ValueError(f"{path} cannot be loaded: {last_line(error)}") from error
    run = lambda images: [each.copy() for each in request.infer([images]).to_tuple()]  # noqa: E731
    return run, read_rt_info(model)


def read_rt_info(model: Any) -> dict[str, str]:
    """Read our entries in the ``rt_info`` of an ``openvino.Model``; empty if there are none."""
    if not model.has_rt_info(["mmvanilla"]):
        return {}
    return {name: str(value) for name, value in model.get_rt_info(["mmvanilla"]).value.items()}


def last_line(error: Exception) -> str:
    """Return the last line of an error's text, which is where the runtimes give their reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


#: For each suffix the function that opens such a file, and the package that it needs.
RUNTIMES: dict[str, tuple[Callable[..., tuple[RunFile, dict[str, str]]], str]] = {
    ".onnx": (open_onnx, "onnxruntime"),
    ".xml": (open_openvino, "openvino"),
}
