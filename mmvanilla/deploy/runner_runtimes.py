"""Open an exported file in its own runtime, without PyTorch: a part of the runner."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    """Open an ``.onnx`` file in ONNX Runtime: the function that runs it, and the file's metadata.

    ``device`` is a name of the runtime, such as ``'cuda'``; with 0 ``threads`` it chooses. A file
    that cannot be loaded, or a device that cannot be used, is a ValueError.
    """
    silence_telemetry()
    import onnxruntime

    provider = f"{device.upper()}ExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"this onnxruntime has no {provider}; take another device, such as cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised, so they need not be printed
    with _loading(path):
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    if provider not in session.get_providers():  # it would take the CPU, and only log that
        raise ValueError(f"onnxruntime does not find the libraries for {device}; install them")
    name = session.get_inputs()[0].name
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    return lambda images: session.run(None, {name: images}), metadata


def open_openvino(
    path: Path, device: str = "cpu", threads: int = 0, precision: str = "f32"
) -> tuple[RunFile, dict[str, str]]:
    """Open an ``.xml`` file, beside which its ``.bin`` file lies, as :func:`open_onnx` does.

    ``precision`` is that of layers in floating point on a CPU; some would take bfloat16 by default.
    """
    silence_telemetry()
    import openvino

    options: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "cpu":
        options["INFERENCE_PRECISION_HINT"] = precision
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    # An int8 model gives its thread a stack for signals, and, when it is closed, the one before it.
    # In the main thread, where that one may be gone, Ctrl-C would be a segmentation fault.
    with _loading(path), ThreadPoolExecutor(1) as other:
        model = openvino.Core().read_model(str(path))
        compiled = other.submit(openvino.compile_model, model, device.upper(), options).result()
        request = compiled.create_infer_request()
    run = lambda images: [each.copy() for each in request.infer([images]).to_tuple()]  # noqa: E731
    return run, read_rt_info(model)


def read_rt_info(model: Any) -> dict[str, str]:
    """Read our entries in the ``rt_info`` of an ``openvino.Model``; empty if there are none."""
    if not model.has_rt_info(["mmvanilla"]):
        return {}
    return {name: str(value) for name, value in model.get_rt_info(["mmvanilla"]).value.items()}


def open_ncnn(path: Path, device: str = "cpu", threads: int = 0) -> tuple[RunFile, dict[str, str]]:
    """Open a ``.param`` file, with its ``.param.bin`` and ``.param.json``, as :func:`open_onnx`."""
    import ncnn

    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    net.opt.num_threads = threads or net.opt.num_threads
    with _loading(path):
        if net.load_param(str(path)) or net.load_model(f"{path}.bin"):
            raise ValueError("ncnn does not know a layer, or the .param.bin file is missing")

    def run(image: np.ndarray) -> list[np.ndarray]:
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(image).clone())
            return [np.array(extractor.extract(name)[1]) for name in sorted(net.output_names())]

    return _one_by_one(path, device, run)


def open_litert(
    path: Path, device: str = "cpu", threads: int = 0
) -> tuple[RunFile, dict[str, str]]:
    """Open a ``.tflite`` file, with its ``.tflite.json``, as :func:`open_onnx` does."""
    from ai_edge_litert.interpreter import Interpreter

    with _loading(path):
        interpreter = Interpreter(str(path), num_threads=threads or None)
        interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()

    def run(image: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        outputs = interpreter.get_output_details()
        return [interpreter.get_tensor(output["index"])[0] for output in outputs]

    return _one_by_one(path, device, run)


def open_executorch(
    path: Path, device: str = "cpu", threads: int = 0
) -> tuple[RunFile, dict[str, str]]:
    """Open a ``.pte`` file, with its ``.pte.json``; it uses the threads it likes."""
    import torch
    from executorch.runtime import Runtime

    with _loading(path):
        method = Runtime.get().load_program(str(path)).load_method("forward")

    def run(image: np.ndarray) -> list[np.ndarray]:
        return [output[0].numpy().copy() for output in method.execute([torch.tensor(image[None])])]

    return _one_by_one(path, device, run)


def _one_by_one(
    path: Path, device: str, run: Callable[[np.ndarray], list[np.ndarray]]
) -> tuple[RunFile, dict[str, str]]:
    """Make of a function of one image, (C, H, W), what :func:`open_onnx` returns."""
    if device != "cpu":
        raise ValueError(f"{path} can only be run on the CPU here; leave the device out")
    beside = Path(f"{path}.json")
    metadata = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    return lambda images: [np.stack(each) for each in zip(*map(run, images))], metadata


@contextlib.contextmanager
def _loading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the runtimes' errors have no common class
        raise ValueError(f"{path} cannot be loaded: {last_line(error)}") from error


def last_line(error: Exception) -> str:
    """Return the last line of an error's text, which is where the runtimes give their reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


#: For each suffix the function that opens such a file, and the package that it needs.
RUNTIMES: dict[str, tuple[Callable[..., tuple[RunFile, dict[str, str]]], str]] = {
    ".onnx": (open_onnx, "onnxruntime"),
    ".xml": (open_openvino, "openvino"),
    ".param": (open_ncnn, "ncnn"),
    ".tflite": (open_litert, "ai-edge-litert"),
    ".pte": (open_executorch, "executorch"),
}
