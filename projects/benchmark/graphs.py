"""Run a network eagerly, compiled by torch.compile, or captured as a CUDA graph."""

from __future__ import annotations

import contextlib
import itertools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

#: One forward pass, ready to be timed.
Run = Callable[[], object]

_COUNTER = itertools.count()


class Unmeasurable(RuntimeError):
    """A form cannot be run here; the message says why."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def run_eagerly(net: Callable[[Tensor], Any], images: Tensor) -> Run:
    """Make a forward pass without gradients; it returns the network's output."""

    @torch.no_grad()
    def run() -> Any:
        return net(images)

    return run


def run_compiled(net: nn.Module, images: Tensor) -> Run:
    """Make a forward pass with torch.compile, on a CPU with frozen weights.

    Raises:
        Unmeasurable: torch.compile fails, for want of a compiler for example.
    """
    import torch._inductor.config as inductor

    run = _compile(net, images)
    # As an option of torch.compile, freezing would be ignored without a warning.
    freezing = contextlib.nullcontext() if images.is_cuda else inductor.patch(freezing=True)
    try:
        with freezing:
            run()
    except Exception as error:  # a missing compiler causes various errors
        raise Unmeasurable(f"torch.compile: {first_line(error)}") from error
    return run


def run_autotuned(net: nn.Module, images: Tensor) -> Run:
    """Make a forward pass with torch.compile in its mode max-autotune.

    Raises:
        Unmeasurable: torch.compile fails.
    """
    run = _compile(net, images, mode="max-autotune")

    def step() -> object:
        # The compiled network may run as a CUDA graph, whose last output is given back by this.
        torch.compiler.cudagraph_mark_step_begin()
        return run()

    try:
        for _ in range(3):  # the second and third calls warm the CUDA graph up and record it
            step()
    except Exception as error:
        raise Unmeasurable(f"torch.compile: {first_line(error)}") from error
    return step


def _compile(net: nn.Module, images: Tensor, **options: Any) -> Run:
    forward: Any = type(net).forward
    # torch.compile keeps 8 variants of one piece of code, and runs the ninth eagerly, with no more
    # than a warning. Networks of different structure are variants of TensorModel.forward, so each
    # gets a copy of that code.
    code = forward.__code__.replace(co_name=f"forward_{next(_COUNTER)}")
    own = types.FunctionType(code, forward.__globals__, closure=forward.__closure__)
    net.forward = types.MethodType(own, net)
    return run_eagerly(torch.compile(net, **options), images)


def run_as_cuda_graph(net: nn.Module, images: Tensor) -> Run:
    """Capture a forward pass as a CUDA graph, and make a function that replays it.

    Raises:
        Unmeasurable: The images are not on a GPU, or the network cannot be captured.
    """
    if not images.is_cuda:
        raise Unmeasurable("CUDA graphs need a CUDA device")
    run = run_eagerly(net, images)
    # Capturing needs a warm-up on a stream of its own.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            output = run()
    except RuntimeError as error:  # the network waits for the GPU, for example
        raise Unmeasurable(f"cannot be captured as a CUDA graph: {first_line(error)}") from error

    def replay() -> object:
        # A graph holds the addresses of the weights and images, but does not keep them alive.
        assert run is not None
        graph.replay()
        return output

    return replay
