"""Compiled and captured networks: what shows only after many networks, or only on a GPU."""

import contextlib
import gc
import shutil
import weakref

import pytest
import torch
from torch import nn

from mmvanilla.apis.model import TensorModel
from mmvanilla.benchmark import graphs
from mmvanilla.benchmark.graphs import Unmeasurable, run_as_cuda_graph, run_autotuned, run_compiled
from mmvanilla.benchmark.plain_networks import build_plain_ours
from mmvanilla.utils.numerics import relative_difference


def test_every_network_is_compiled_however_many_there_are(monkeypatch):
    """torch.compile runs the ninth variant of one piece of code eagerly, and only warns."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net, **kw: original(net, backend=backend))
    torch.compiler.reset()
    for layers in range(1, 11):
        net = TensorModel(nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(layers))), "backbone")
        run = run_compiled(net.eval(), torch.randn(1, 3, 4, 4))
        assert run().shape == (1, 3, 4, 4)
        assert len(compiled) == layers
    torch.compiler.reset()


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_autotuned_network_gives_the_same_outputs():
    net = TensorModel(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU()), "backbone").eval()
    images = torch.randn(1, 3, 8, 8)
    expected = net(images).detach()
    torch.testing.assert_close(run_autotuned(net, images)(), expected, rtol=1e-4, atol=1e-5)


def test_a_failure_of_the_compiler_names_itself(monkeypatch):
    def broken(net, **options):
        def run(images):
            raise ValueError("no compiler\nlong story")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    net = TensorModel(nn.Sequential(nn.Conv2d(3, 3, 1)), "backbone")
    for prepare in (run_compiled, run_autotuned):
        with pytest.raises(Unmeasurable, match=r"^torch\.compile: no compiler$"):
            prepare(net, torch.randn(1, 3, 4, 4))


class FakeImages:
    """Images that say that they are on a GPU."""

    is_cuda = True


@pytest.fixture
def fake_cuda(monkeypatch):
    """Streams and graphs that do nothing; a replay is counted."""

    class Stream:
        def wait_stream(self, other):
            pass

    class Graph:
        replays = 0

        def replay(self):
            Graph.replays += 1

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: contextlib.nullcontext())
    return Graph


class Network(nn.Module):
    calls = 0

    def forward(self, images):
        self.calls += 1
        return self.calls


def test_a_captured_graph_keeps_its_weights_and_images_alive(fake_cuda):
    """A CUDA graph holds addresses only: freed memory would be read, without an error at first."""
    net, images = Network(), FakeImages()
    kept = weakref.ref(net), weakref.ref(images)
    replay = run_as_cuda_graph(net, images)
    assert net.calls == 4  # three to warm up, one to capture
    del net, images
    gc.collect()
    assert all(reference() is not None for reference in kept)
    assert replay() == 4 and fake_cuda.replays == 1
    del replay
    gc.collect()
    assert all(reference() is None for reference in kept)


def test_what_cannot_be_captured_is_named(fake_cuda, monkeypatch):
    @contextlib.contextmanager
    def refusing(graph):
        yield
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "graph", refusing)
    with pytest.raises(Unmeasurable, match="CUDA graph: operation not permitted when stream is"):
        run_as_cuda_graph(Network(), FakeImages())
    with pytest.raises(Unmeasurable, match="need a CUDA device"):
        run_as_cuda_graph(Network(), torch.zeros(1))


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["run_as_cuda_graph", "run_compiled", "run_autotuned"])
def test_forms_of_a_gpu_give_the_eager_outputs(form):
    net = TensorModel(build_plain_ours("5", width_mult=1 / 16).fused, "logits").cuda().eval()
    images = torch.randn(2, 3, 64, 64, device="cuda")
    with torch.no_grad():
        expected = net(images)
    run = getattr(graphs, form)(net, images)
    for _ in range(3):  # with TF32, which the default allows
        assert relative_difference(expected, run()) < 2e-2
