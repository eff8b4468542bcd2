"""Run networks as exported files, in ONNX Runtime and OpenVINO, and profile them there."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmvanilla.deploy.exporting import DEFAULT_TOLERANCE, export_model
from mmvanilla.deploy.formats import find_format
from mmvanilla.deploy.quantize import RUNTIMES
from mmvanilla.deploy.runner_runtimes import silence_telemetry
from projects.benchmark.graphs import Run, Unmeasurable, first_line
from projects.benchmark.profiling import RUNS, Operator, group_operators

_CUDA = "CUDAExecutionProvider"


@contextlib.contextmanager
def exported(
    model: nn.Module, images: Tensor, name: str, *, int8: bool, backbone: bool, is_ours: bool
) -> Iterator[Path]:
    """Export a fused network to a scratch folder, which is deleted at the end.

    Args:
        model: Network in deploy form.
        images: Images that it is to run on, (N, 3, H, W).
        name: Name of the file; its suffix decides the format.
        int8: Whether to quantise the file, with random images.
        backbone: Whether to export only the backbone.
        is_ours: Whether the network is a VanillaNet, whose export is checked strictly.

    Yields:
        Path of the file to run.

    Raises:
        Unmeasurable: The network cannot be exported, or the images are not fp32, or are on a GPU
            for int8. The errors of what is done with the file become this, too.
    """
    if images.dtype != torch.float32:
        raise Unmeasurable("the exported file is fp32")
    if int8 and images.is_cuda:
        raise Unmeasurable("int8 is measured on a CPU only")
    height, width = images.shape[-2:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        try:
            export_model(
                model,
                path,
                find_format(path),
                size=(height, width),
                part="backbone" if backbone else None,
                dynamic=is_ours,  # the graphs of some peers depend on the input size
                # A peer's export is not ours to check strictly, and random weights amplify
                # differences.
                tolerance=DEFAULT_TOLERANCE if is_ours else 1e-3,
            )
            if int8:
                # The accuracy of random weights does not matter, so one image is enough.
                full, path = path, path.with_name(f"int8{path.suffix}")
                RUNTIMES[path.suffix].quantize(full, path, [images[:1].numpy()])
            yield path
        except (RuntimeError, ImportError, ValueError) as error:
            raise Unmeasurable(first_line(error)) from error


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
    silence_telemetry()
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
    silence_telemetry()
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


def run_in_onnxruntime(path: Path, images: Tensor, threads: int) -> Run:
    """Load a file into ONNX Runtime, on the device of the images."""
    index = images.device.index or 0
    session = open_session(path, threads, cuda=images.is_cuda, device_id=index)
    if images.is_cuda:
        return _bound(session, images.contiguous(), index)
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)


def _bound(session: Any, images: Tensor, index: int) -> Run:
    """Run a session on images that are on the GPU, and leave the outputs there."""
    binding = session.io_binding()
    binding.bind_input(
        session.get_inputs()[0].name,
        "cuda",
        index,
        np.float32,
        tuple(images.shape),
        images.data_ptr(),
    )
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda", index)

    def run() -> object:
        assert images.is_cuda  # the binding has the address of the images, but does not keep them
        session.run_with_iobinding(binding)
        return binding

    return run


def run_in_openvino(path: Path, images: Tensor, threads: int) -> Run:
    """Load a file into OpenVINO, on the CPU."""
    request = compile_model(path, threads).create_infer_request()
    arrays = [images.numpy()]
    request.infer(arrays)  # it reads the weights lazily, from the file
    return lambda: request.infer(arrays, share_inputs=True)


def profile_in_onnxruntime(path: Path, images: Tensor, threads: int) -> list[Operator]:
    """Find the operators that take the time of a file in ONNX Runtime, on the CPU.

    Returns:
        As :func:`~projects.benchmark.profiling.profile_operators`; ``operator`` has the data type
        of its input, such as ``QLinearConv uint8``.
    """
    import onnx

    prefix = str(path.with_name("profiled"))
    session = open_session(path, threads, profile_prefix=prefix)
    graph = onnx.load(f"{prefix}.onnx").graph
    sizes = {weight.name: list(weight.dims) for weight in graph.initializer}
    weights = {
        node.name: [sizes[name] for name in node.input if len(sizes.get(name, ())) > 1][:1]
        for node in graph.node
    }
    feed = {session.get_inputs()[0].name: images.numpy()}
    for _ in range(RUNS):
        session.run(None, feed)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times = []
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        entry = event["args"]
        inputs = [pair for each in entry["input_type_shape"] for pair in each.items()]
        kind, shape = inputs[0] if inputs else ("", [])
        name = event["name"].removesuffix("_kernel_time")
        shapes = [shape, *weights.get(name, [])]
        times.append((f"{entry['op_name']} {kind}".strip(), shapes, 1, event["dur"] / 1e3))
    return group_operators(times)


def profile_in_openvino(path: Path, images: Tensor, threads: int) -> list[Operator]:
    """Find the operators that take the time of a file in OpenVINO.

    Returns:
        As :func:`~projects.benchmark.profiling.profile_operators`; ``operator`` has the name of
        OpenVINO's kernel, which ends in its data type, such as ``brgconv_avx512_1x1_I8``.
    """
    compiled = compile_model(path, threads, profiled_shape=images.shape)
    request = compiled.create_infer_request()
    shapes = {
        node.get_friendly_name(): [
            list(node.get_input_shape(index)) for index in range(min(2, node.get_input_size()))
        ]
        for node in compiled.get_runtime_model().get_ops()
    }
    arrays = [images.numpy()]
    request.infer(arrays)
    times = []
    for _ in range(RUNS):
        request.infer(arrays)
        times += [
            (
                f"{node.node_type} {node.exec_type}",
                shapes.get(node.node_name, []),
                1,
                node.real_time.total_seconds() * 1e3,
            )
            for node in request.get_profiling_info()
            if node.status.name == "EXECUTED"
        ]
    return group_operators(times)
