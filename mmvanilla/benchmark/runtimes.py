"""The forms in which ``tools/benchmark.py`` runs a network's forward pass."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmvanilla.analysis import complexity
from mmvanilla.apis.model import TensorModel
from mmvanilla.benchmark.graphs import (
    Run,
    Unmeasurable,
    first_line,
    run_as_cuda_graph,
    run_autotuned,
    run_compiled,
    run_eagerly,
)
from mmvanilla.benchmark.networks import Contender
from mmvanilla.deploy.onnx_export import DEFAULT_TOLERANCE, export_onnx
from mmvanilla.deploy.onnx_quantize import quantize_file
from mmvanilla.deploy.onnx_runtime import open_session
from mmvanilla.models.packed_conv import pack_for_cpu

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
        threads: Number of threads for ONNX Runtime. 0: it chooses.
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
        threads: Number of threads for ONNX Runtime. 0 (default): it chooses.

    Returns:
        A function that runs one forward pass.

    Raises:
        ValueError: The form is unknown.
        Unmeasurable: The form cannot be run here.
    """
    if form not in RUNTIMES:
        raise ValueError(f"unknown form {form!r}; choose from {', '.join(RUNTIMES)}")
    return RUNTIMES[form].prepare(Job(contender, images, _output(features), threads))


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


def _packed(job: Job) -> Run:
    if job.on_gpu or job.images.dtype != torch.float32:
        raise Unmeasurable("weights are packed on a CPU in fp32 only")
    return run_eagerly(pack_for_cpu(job.network("fused"), inplace=True), job.images)


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


def _onnxruntime(job: Job, int8: bool = False) -> Run:
    if job.images.dtype != torch.float32:
        raise Unmeasurable("the exported file is fp32")
    is_ours = job.contender.kind == "ours"
    height, width = job.images.shape[-2:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        try:
            export_onnx(
                job.contender.fused,
                path,
                size=(height, width),
                part="backbone" if job.output == "backbone" else None,
                dynamic=is_ours,  # the graphs of some peers depend on the input size
                # A peer's export is not ours to check strictly, and random weights amplify
                # differences.
                tolerance=DEFAULT_TOLERANCE if is_ours else 1e-3,
            )
            if int8:
                quantized = path.with_name("int8.onnx")
                # The accuracy of random weights does not matter, so one image is enough for the
                # ranges.
                quantize_file(path, quantized, [job.images[:1].numpy()])
                path = quantized
            index = job.images.device.index or 0
            session = open_session(path, job.threads, cuda=job.on_gpu, device_id=index)
        except (RuntimeError, ImportError, ValueError) as error:
            raise Unmeasurable(first_line(error)) from error
    if job.on_gpu:
        return _bound(session, job.images.contiguous(), index)
    feed = {session.get_inputs()[0].name: job.images.cpu().numpy()}
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


def _int8(job: Job) -> Run:
    if job.on_gpu:
        raise Unmeasurable("int8 is measured on a CPU only")
    return _onnxruntime(job, int8=True)


class Runtime(NamedTuple):
    """One way to run a network.

    Attributes:
        meaning: Description for the help of the tool.
        prepare: Function that prepares a job; it raises :class:`Unmeasurable` if the job cannot
            run.
        for_gpu: Whether the form is for GPUs, so that it is measured on a CPU only if it is named.
            Default: False.
    """

    meaning: str
    prepare: Callable[[Job], Run]
    for_gpu: bool = False


#: The forms to run a network in. All but ``training`` use the fused network (for a peer, the one
#: with its batch norms folded into its convolutions).
RUNTIMES: dict[str, Runtime] = {
    "training": Runtime("as trained, in eval mode", _training),
    "fused": Runtime("fused, NCHW", _fused),
    "channels_last": Runtime("fused, whole model channels_last", _channels_last),
    "packed": Runtime("fused, mmvanilla.pack_for_cpu", _packed),
    "compiled": Runtime(
        "fused, channels_last, torch.compile (on a CPU with TORCHINDUCTOR_FREEZING=1)", _compiled
    ),
    "onnxruntime": Runtime("fused, tools/export_onnx.py and ONNX Runtime", _onnxruntime),
    "int8": Runtime(
        "the same, quantised as tools/quantize_onnx.py does; for its speed only", _int8
    ),
    "cuda_graph": Runtime("fused, channels_last, replayed as a CUDA graph", _cuda_graph, True),
    "cuda_graph_nchw": Runtime("fused, NCHW, replayed as a CUDA graph", _cuda_graph_nchw, True),
    "max_autotune": Runtime(
        "fused, channels_last, torch.compile(mode='max-autotune')", _max_autotune, True
    ),
}
