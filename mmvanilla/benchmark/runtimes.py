"""The forms in which ``tools/benchmark.py`` runs a network's forward pass."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmvanilla.benchmark.networks import Contender
from mmvanilla.benchmark.reference import ReferenceVanillaNet
from mmvanilla.deploy.onnx_export import DEFAULT_TOLERANCE, export_onnx
from mmvanilla.deploy.onnx_quantize import quantize_file
from mmvanilla.deploy.onnx_runtime import open_session
from mmvanilla.models.packed_conv import pack_for_cpu

#: Forms to run a network in. All but ``training`` start from the fused one (of a peer: with its
#: batch norms folded into its convolutions).
FORMS: dict[str, str] = {
    "training": "as trained, in eval mode",
    "fused": "fused, NCHW",
    "channels_last": "fused, whole model channels_last",
    "packed": "fused, mmvanilla.pack_for_cpu",
    "compiled": "fused, channels_last, torch.compile (on a CPU with TORCHINDUCTOR_FREEZING=1)",
    "onnxruntime": "fused, tools/export_onnx.py and ONNX Runtime",
    "int8": "the same, quantised as tools/quantize_onnx.py does; for its speed only",
    "cuda_graph": "fused, channels_last, replayed as a CUDA graph",
}

DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


class Unmeasurable(RuntimeError):
    """This form cannot be run here; the message says why."""


class _Forward(nn.Module):
    """A classifier's logits, or its backbone's features, from images alone."""

    def __init__(self, model: Any, features: bool) -> None:
        super().__init__()
        self.model = model
        self.features = features

    def forward(self, x: Tensor) -> Any:
        if isinstance(self.model, ReferenceVanillaNet):
            return self.model.features(x) if self.features else self.model(x)
        return self.model.backbone(x) if self.features else self.model(x, mode="tensor")


def prepare(
    contender: Contender,
    form: str,
    images: Tensor,
    features: bool = False,
    threads: int = 0,
) -> Callable[[], object]:
    """Make a network ready in one form.

    Args:
        contender: The network.
        form: One of :data:`FORMS`.
        images: (N, 3, H, W); the network moves to their device and dtype.
        features: Run the backbone alone.
        threads: For ONNX Runtime; 0: as many as it likes.

    Returns:
        What to time: one forward pass.

    Raises:
        ValueError: No such form.
        Unmeasurable: The form cannot be run here.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, found {form!r}")
    if form in ("onnxruntime", "int8"):
        return _prepare_onnxruntime(contender, images, features, threads, form == "int8")
    model = contender.model if form == "training" else contender.fused
    net = _Forward(copy.deepcopy(model), features).to(images.device, images.dtype).eval()
    if form in ("training", "fused"):
        return lambda: _run(net, images)
    on_gpu = images.device.type == "cuda"
    if form == "packed":
        if on_gpu or images.dtype != torch.float32:
            raise Unmeasurable("weights are packed on a CPU in fp32 only")
        pack_for_cpu(net, inplace=True)
        return lambda: _run(net, images)
    channels_last: Any = dict(memory_format=torch.channels_last)
    net = net.to(**channels_last)
    images = images.to(memory_format=torch.channels_last)
    if form == "channels_last":
        return lambda: _run(net, images)
    if form == "compiled":
        compiled = torch.compile(net)
        try:
            with _freezing(not on_gpu):
                _run(compiled, images)
        except Exception as error:  # a missing compiler shows in many ways
            raise Unmeasurable(f"torch.compile: {_first_line(error)}") from error
        return lambda: _run(compiled, images)
    if not on_gpu:
        raise Unmeasurable("CUDA graphs need a CUDA device")
    return _prepare_cuda_graph(net, images)


def _freezing(enabled: bool) -> Any:
    # As an option of torch.compile it comes too late, and is ignored without a word.
    import torch._inductor.config as inductor

    return inductor.patch(freezing=True) if enabled else contextlib.nullcontext()


def count_macs(contender: Contender, form: str, images: Tensor, features: bool = False) -> int:
    """Multiply-accumulates of one image in one form. Arguments as :func:`prepare`."""
    model = contender.model if form == "training" else contender.fused
    counter = FlopCounterMode(display=False)
    with counter:
        _run(_Forward(model, features), images[:1].float().cpu())
    return counter.get_total_flops() // 2  # torch counts multiplications and additions


def _run(net: Callable[[Tensor], Any], images: Tensor) -> Any:
    with torch.no_grad():
        return net(images)


def _prepare_cuda_graph(net: nn.Module, images: Tensor) -> Callable[[], object]:
    # Capturing needs a warm-up on a stream of its own.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            _run(net, images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        _run(net, images)
    return graph.replay


def _prepare_onnxruntime(
    contender: Contender, images: Tensor, features: bool, threads: int, int8: bool
) -> Callable[[], object]:
    if images.dtype != torch.float32:
        raise Unmeasurable("the exported file is fp32")
    on_gpu = images.device.type == "cuda"
    if int8 and on_gpu:
        raise Unmeasurable("int8 is measured on a CPU only")
    is_ours = contender.kind == "ours"
    height, width = images.shape[-2:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        try:
            export_onnx(
                contender.fused,
                path,
                size=(height, width),
                part="backbone" if features else None,
                dynamic=is_ours,  # some peers' graphs hold their input's size
                # Theirs is not the export that we answer for, and random weights are no mild test.
                tolerance=DEFAULT_TOLERANCE if is_ours else 1e-3,
            )
            if int8:
                quantized = path.with_name("int8.onnx")
                # Random weights have no accuracy to lose: one image gives ranges enough.
                quantize_file(path, quantized, [images[:1].numpy()])
                path = quantized
            session = open_session(path, threads, cuda=on_gpu)
        except (RuntimeError, ImportError, ValueError) as error:
            raise Unmeasurable(_first_line(error)) from error
    feed = {session.get_inputs()[0].name: images.cpu().numpy()}
    return lambda: session.run(None, feed)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
