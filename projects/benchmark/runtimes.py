"""The forms in which the benchmark runs a network's forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

<<<<<<< HEAD
from mmvanilla.apis import complexity
from mmvanilla.apis.model import TensorModel
from projects.benchmark.exported import (
    exported,
    profile_in_onnxruntime,
    profile_in_openvino,
    run_in_onnxruntime,
    run_in_openvino,
)
from projects.benchmark.graphs import (
    Run,
    Unmeasurable,
    run_as_cuda_graph,
    run_autotuned,
    run_compiled,
    run_eagerly,
)
from projects.benchmark.networks import Contender
from projects.benchmark.profiling import Operator, profile_operators
=======
from mmvanilla.deploy.exporting import export_model
from mmvanilla.deploy.formats import FORMATS
from mmvanilla.deploy.quantize import RUNTIMES
from projects.benchmark.networks import Network, Part
>>>>>>> f20449c (Benchmark networks, forms and runtimes by a quarter of the code, on any device)

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
    "openvino_int8": "the same, quantised by NNCF; for its speed only",
}
_GPU_ONLY = {"cuda_graph"}
_FILES = {
    "onnxruntime": ("onnx", ".onnx"),
    "int8": ("onnx", ".onnx"),
    "openvino": ("openvino", ".xml"),
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


<<<<<<< HEAD
def _runtime(form: str) -> Runtime:
    if form not in RUNTIMES:
        raise ValueError(f"unknown form {form!r}; choose from {', '.join(RUNTIMES)}")
    return RUNTIMES[form]


def count_macs(contender: Contender, form: str, images: Tensor, features: bool = False) -> int:
    """Count the multiply-accumulates of one image; the arguments are those of :func:`prepare`."""
    # On the meta device, since on the CPU a large image would take seconds.
    net = _network(contender, form, _output(features)).to("meta")
    return complexity.count_macs(net, torch.empty(1, *images.shape[1:], device="meta"))


def _output(features: bool) -> str:
    return "backbone" if features else "logits"


def _network(contender: Contender, form: str, output: str) -> nn.Module:
    model = contender.model if form == "training" else contender.fused
    return TensorModel(copy.deepcopy(model), output).eval()


def _training(job: Job) -> Run:
    return run_eagerly(job.network("training"), job.images)


def _fused(job: Job) -> Run:
    return run_eagerly(job.network("fused"), job.images)


def _in_channels_last(job: Job) -> tuple[nn.Module, Tensor]:
    channels_last: Any = dict(memory_format=torch.channels_last)
    return job.network("fused").to(**channels_last), job.images.to(**channels_last)


def _channels_last(job: Job) -> Run:
    return run_eagerly(*_in_channels_last(job))


def _compiled(job: Job) -> Run:
    return run_compiled(*_in_channels_last(job))


def _max_autotune(job: Job) -> Run:
    return run_autotuned(*_in_channels_last(job))


def _cuda_graph(job: Job) -> Run:
    return run_as_cuda_graph(*_in_channels_last(job))


def _cuda_graph_nchw(job: Job) -> Run:
    return run_as_cuda_graph(job.network("fused"), job.images)


def _in_torch(run: Run, job: Job) -> list[Operator]:
    return profile_operators(run, job.images.device)


def _with_file(
    job: Job, name: str, int8: bool, use: Callable[[Path, Tensor, int], _Result]
) -> _Result:
    """Export the network and do something with the file, which is deleted afterwards."""
    if name.endswith(".xml") and job.on_gpu:
        raise Unmeasurable("OpenVINO is measured on a CPU only")
    backbone, is_ours = job.output == "backbone", job.contender.kind == "ours"
    options: Any = dict(int8=int8, backbone=backbone, is_ours=is_ours)
    with exported(job.contender.fused, job.images, name, **options) as path:
        return use(path, job.images, job.threads)


def _onnxruntime(job: Job, int8: bool = False) -> Run:
    return _with_file(job, "net.onnx", int8, run_in_onnxruntime)


def _openvino(job: Job, int8: bool = False) -> Run:
    return _with_file(job, "net.xml", int8, run_in_openvino)


def _in_onnxruntime(run: Run, job: Job, int8: bool = False) -> list[Operator]:
    return [] if job.on_gpu else _with_file(job, "net.onnx", int8, profile_in_onnxruntime)


def _in_openvino(run: Run, job: Job, int8: bool = False) -> list[Operator]:
    return _with_file(job, "net.xml", int8, profile_in_openvino)


class Runtime(NamedTuple):
    """One way to run a network.

    Attributes:
        meaning: Description for the help of the tool.
        prepare: Function that prepares a job; it raises :class:`Unmeasurable` if the job cannot
            run.
        profile: Function that finds the operators that take the time of such a run. Default: with
            PyTorch's profiler.
        for_gpu: Whether the form is for GPUs, so that it is measured on a CPU only if it is named.
            Default: False.
    """

    meaning: str
    prepare: Callable[[Job], Run]
    profile: Callable[[Run, Job], list[Operator]] = _in_torch
    for_gpu: bool = False


#: The forms to run a network in. All but ``training`` use the fused network (for a peer, the one
#: with its batch norms folded into its convolutions).
RUNTIMES: dict[str, Runtime] = {
    "training": Runtime("as trained, in eval mode", _training),
    "fused": Runtime("fused, NCHW", _fused),
    "channels_last": Runtime("fused, whole model channels_last", _channels_last),
    "compiled": Runtime(
        "fused, channels_last, torch.compile (on a CPU with TORCHINDUCTOR_FREEZING=1)", _compiled
    ),
    "onnxruntime": Runtime(
        "fused, exported to ONNX, in ONNX Runtime", _onnxruntime, _in_onnxruntime
    ),
    "int8": Runtime(
        "the same, quantised by `quantize`; for its speed only",
        partial(_onnxruntime, int8=True),
        partial(_in_onnxruntime, int8=True),
    ),
    "openvino": Runtime("fused, exported to OpenVINO, in fp32", _openvino, _in_openvino),
    "openvino_int8": Runtime(
        "the same, quantised by `quantize`, with NNCF; for its speed only",
        partial(_openvino, int8=True),
        partial(_in_openvino, int8=True),
    ),
    "cuda_graph": Runtime(
        "fused, channels_last, replayed as a CUDA graph", _cuda_graph, for_gpu=True
    ),
    "cuda_graph_nchw": Runtime(
        "fused, NCHW, replayed as a CUDA graph", _cuda_graph_nchw, for_gpu=True
    ),
    "max_autotune": Runtime(
        "fused, channels_last, torch.compile(mode='max-autotune')", _max_autotune, for_gpu=True
    ),
}
=======
def _exported(network: Network, form: str, images: Tensor, features: bool) -> Run:
    if images.is_cuda or images.dtype != torch.float32:
        raise ValueError("exported files are run in fp32 on a CPU")
    target, suffix = _FILES[form]
    runtime = RUNTIMES[suffix]
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
            runtime.quantize(full, path, [images[:1].numpy()])
        session = runtime.open(path, torch.get_num_threads())
        array = images.numpy()
        session(array)  # OpenVINO reads the weights lazily, from the file
    return lambda: session(array)
>>>>>>> f20449c (Benchmark networks, forms and runtimes by a quarter of the code, on any device)
