"""The forms in which the benchmark runs a network's forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from mmvanilla.deploy.exporting import QuantizeJob, export_model
from mmvanilla.deploy.formats import FORMATS
from mmvanilla.deploy.quantize import open_form
from mmvanilla.deploy.runner_runtimes import open_openvino
from projects.benchmark.networks import Network, Part

#: One forward pass, ready to be timed.
Run = Callable[[], object]

#: What each form is. All but ``training`` use the network for inference.
FORMS: dict[str, str] = {
    "training": "as trained, in eval mode",
    "fused": "fused, NCHW",
    "channels_last": "fused, whole model channels_last",
    "compiled": "fused, channels_last, torch.compile (CPU: with freezing; GPU: max-autotune)",
    "cuda_graph": "fused, channels_last, torch.compile in mode reduce-overhead (GPU only)",
    "torchscript": "fused, exported to TorchScript and frozen",
    "onnxruntime": "fused, exported to ONNX, in ONNX Runtime (CPU only)",
    "int8": "the same, quantised as `mmvanilla quantize` does; for its speed only",
    "openvino": "fused, exported to OpenVINO (CPU only)",
    "openvino_bf16": "the same, in OpenVINO's own default on CPUs that have bf16",
    "openvino_int8": "the same, quantised by NNCF; for its speed only",
}
_GPU_ONLY = {"cuda_graph"}
_FILES = {
    "onnxruntime": ("onnx", ".onnx"),
    "int8": ("onnx", ".onnx"),
    "openvino": ("openvino", ".xml"),
    "openvino_bf16": ("openvino", ".xml"),
    "openvino_int8": ("openvino", ".xml"),
}
#: Data types by name; ``tf32`` is float32 with TF32 in convolutions and products, on GPUs.
DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def forms_of(device: torch.device) -> list[str]:
    """List the forms that a device has."""
    left_out = _GPU_ONLY if device.type == "cpu" else set(_FILES)
    return [form for form in FORMS if form not in left_out]


def prepare(network: Network, form: str, images: Tensor, features: bool = False) -> Run:
    """Prepare a network to run in one form.

    Args:
        network: Network to run.
        form: Name of the form, a key of :data:`FORMS`.
        images: Images, (N, 3, H, W); the network is moved to their device and data type.
        features: Whether to run only the backbone. Default: False.

    Returns:
        A function that runs one forward pass. What goes wrong, such as a missing compiler or
        package, is raised here as whatever the library raises.
    """
    if form in _FILES:
        return _exported(network, form, images, features)
    model = network.model if form == "training" else network.fused
    net: nn.Module = Part(copy.deepcopy(model), features).to(images.device, images.dtype)
    if form in ("channels_last", "compiled", "cuda_graph"):
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.to(memory_format=torch.channels_last)
    if form == "torchscript":
        net = torch.jit.freeze(torch.jit.trace(net, images))
    if form in ("compiled", "cuda_graph"):
        return _compiled(net, form, images)

    @torch.no_grad()
    def run() -> object:
        return net(images)

    return run


def _compiled(net: nn.Module, form: str, images: Tensor) -> Run:
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    on_gpu = images.is_cuda
    modes = {"compiled": "max-autotune" if on_gpu else None, "cuda_graph": "reduce-overhead"}
    compiled = torch.compile(net, mode=modes[form])

    @torch.no_grad()
    def run() -> object:
        if on_gpu:  # the last output of a CUDA graph is given back by this
            torch.compiler.cudagraph_mark_step_begin()
        return compiled(images)

    # As an option of torch.compile, freezing would be ignored without a warning. And no more than
    # eight variants of one piece of code, which all networks here share, would be compiled.
    with inductor.patch(freezing=not on_gpu), dynamo.patch(cache_size_limit=1000):
        for _ in range(3):  # a CUDA graph is recorded in the second or third call
            run()
    return run


def _exported(network: Network, form: str, images: Tensor, features: bool) -> Run:
    if images.is_cuda or images.dtype != torch.float32:
        raise ValueError("exported files are run in fp32 on a CPU")
    target, suffix = _FILES[form]
    with TemporaryDirectory() as folder:
        path = Path(folder, f"net{suffix}")
        export_model(
            network.fused,
            path,
            FORMATS[target],
            size=(images.shape[-2], images.shape[-1]),
            part="backbone" if features else None,
            dynamic=False,  # the graphs of some peers depend on the input size
            tolerance=1e-3,  # random weights amplify differences
        )
        if form.endswith("int8"):
            # The accuracy of random weights does not matter, so one image is enough.
            full, path = path, path.with_name(f"int8{suffix}")
            FORMATS[target].quantize(QuantizeJob(full, [images[:1].numpy()]), path)
        session = _open_in_bf16(path) if form.endswith("bf16") else open_form(path).run
        array = images.numpy()
        session(array)  # OpenVINO reads the weights lazily, from the file
    return lambda: session(array)


def _open_in_bf16(path: Path) -> Callable[[np.ndarray], object]:
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ValueError("this CPU has no instructions for bf16")
    return open_openvino(path, threads=torch.get_num_threads(), precision="bf16")[0]
