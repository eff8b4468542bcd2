"""The forms in which ``mmvanilla benchmark`` runs a network's forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

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

_Result = TypeVar("_Result")

DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


class Job(NamedTuple):
    """A network, its input, and the output to compute.

    Attributes:
        contender: Network to run.
        images: Images, (N, 3, H, W); the network is moved to their device and data type.
        output: Name of the output, as in :class:`~mmvanilla.apis.model.TensorModel`.
        threads: Number of threads for ONNX Runtime and OpenVINO. 0: they choose.
    """

    contender: Contender
    images: Tensor
    output: str
    threads: int

    @property
    def on_gpu(self) -> bool:
        """True if the images are on a GPU."""
        return self.images.device.type == "cuda"

    def network(self, form: str) -> nn.Module:
        """Copy the network, in training form or fused, to the device of the images."""
        return _network(self.contender, form, self.output).to(self.images.device, self.images.dtype)


def prepare(
    contender: Contender, form: str, images: Tensor, features: bool = False, threads: int = 0
) -> Run:
    """Prepare a network to run in one form.

    Args:
        contender: Network to run.
        form: Name of the form, a key of :data:`RUNTIMES`.
        images: Images, (N, 3, H, W); the network is moved to their device and data type.
        features: Whether to run only the backbone. Default: False.
        threads: Number of threads for ONNX Runtime and OpenVINO. 0 (default): they choose.

    Returns:
        A function that runs one forward pass.

    Raises:
        ValueError: The form is unknown.
        Unmeasurable: The form cannot be run here.
    """
    return _runtime(form).prepare(Job(contender, images, _output(features), threads))


def find_operators(
    run: Run,
    contender: Contender,
    form: str,
    images: Tensor,
    features: bool = False,
    threads: int = 0,
) -> list[Operator]:
    """Find the operators that take the time of a forward pass.

    Args:
        run: What :func:`prepare` returned for the same other arguments.
        contender: Network that runs.
        form: Name of the form, a key of :data:`RUNTIMES`.
        images: Images, (N, 3, H, W).
        features: Whether only the backbone runs. Default: False.
        threads: Number of threads for ONNX Runtime and OpenVINO. 0 (default): they choose.

    Returns:
        As :func:`~projects.benchmark.profiling.profile_operators`, in PyTorch, ONNX Runtime or
        OpenVINO. Empty if the form has no profiler: ONNX Runtime on a GPU.

    Raises:
        ValueError: The form is unknown.
    """
    return _runtime(form).profile(run, Job(contender, images, _output(features), threads))


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
