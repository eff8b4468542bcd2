"""Run ONNX files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from mmvanilla.deploy.exporting import INPUT_NAME
from mmvanilla.deploy.verification import RunFile

_CUDA = "CUDAExecutionProvider"


def require_onnx() -> None:
    """Check that onnx and onnxruntime are installed.

    Raises:
        ImportError: One of them is not installed.
    """
    # Since 1.29 ONNX Runtime reports its use to its makers, from a thread that its import starts
    # and that has crashed processes (microsoft/onnxruntime 32173).
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{error.name} is not installed; run `pip install onnx onnxruntime onnxscript`"
        ) from error


def open_session(
    path: str | Path,
    threads: int = 0,
    cuda: bool = False,
    device_id: int = 0,
    profile_prefix: str = "",
) -> Any:
    """Load a file into ONNX Runtime.

    Args:
        path: Path of the ``.onnx`` file.
        threads: Number of threads within one operator. 0 (default): ONNX Runtime chooses.
        cuda: Whether to run on a GPU instead of the CPU. Default: False.
        device_id: Number of the GPU. Default: 0.
        profile_prefix: Beginning of the path of the profile that ``session.end_profiling()``
            writes; the graph that runs is written beside it, with the suffix ``.onnx``. Empty
            (default): no profile.

    Returns:
        The ``onnxruntime.InferenceSession`` of the file.

    Raises:
        ImportError: onnxruntime is not installed.
        RuntimeError: ONNX Runtime cannot load the file, was built without CUDA, or does not find
            the libraries of CUDA.
    """
    require_onnx()
    import onnxruntime

    providers: list[Any] = ["CPUExecutionProvider"]
    if cuda:
        providers = [(_CUDA, {"device_id": device_id})]
    if cuda and _CUDA not in onnxruntime.get_available_providers():
        raise RuntimeError(
            "this onnxruntime has no CUDAExecutionProvider; install onnxruntime-gpu instead"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if profile_prefix:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
        options.optimized_model_filepath = f"{profile_prefix}.onnx"
    options.log_severity_level = 4  # errors are raised, so they need not be printed
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise RuntimeError(f"ONNX Runtime cannot load {path}: {error}") from error
    # Without the libraries of CUDA it takes the CPU, and only its log says so.
    if cuda and _CUDA not in session.get_providers():
        raise RuntimeError(
            "ONNX Runtime does not find the CUDA and cuDNN libraries that it was built for and "
            "would run on the CPU; install a version of onnxruntime-gpu that fits, or add the "
            "folder of the libraries to LD_LIBRARY_PATH"
        )
    return session


def open_onnx(path: Path) -> RunFile:
    """Load a file to run it with tensors on the CPU."""
    session = open_session(path)
    return lambda images: [
        torch.from_numpy(output) for output in session.run(None, {INPUT_NAME: images.numpy()})
    ]
