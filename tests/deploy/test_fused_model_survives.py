"""A fused model is plain PyTorch: whatever takes a module takes it."""

import copy
import pickle

import pytest
import torch
import torch.fx.experimental.optimization
from torch import nn

from mmvanilla import VanillaNet, count_fusable, fuse_model
from tests.helpers import randomise

TINY = dict(dims=(8, 16, 24, 32), strides=(2, 2, 2))


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def fused():
    return fuse_model(randomise(VanillaNet(TINY)).eval())


def assert_same(found, expected, rtol=1e-4, atol=1e-4):
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


@torch.no_grad()
def test_copies(fused, images):
    twin = copy.deepcopy(fused)
    assert_same(twin(images), fused(images), rtol=0, atol=0)
    assert_same(pickle.loads(pickle.dumps(fused))(images), fused(images), rtol=0, atol=0)
    twin.stem.conv.weight.zero_()
    assert fused.stem.conv.weight.abs().max() > 0


@torch.no_grad()
def test_jit_trace_serves_other_sizes(fused, images):
    traced = torch.jit.trace(fused, images)
    other = torch.randn(1, 3, 50, 70)
    assert_same(traced(other), fused(other))


@torch.no_grad()
def test_torch_export_and_one_graph(fused, images):
    export = pytest.importorskip("torch.export").export
    program = export(fused, (images,))
    module = program.module() if hasattr(program, "module") else program
    assert_same(module(images), fused(images))
    assert torch._dynamo.explain(fused)(images).graph_break_count == 0


@torch.no_grad()
def test_nobody_finds_anything_left_to_fuse(fused, images):
    expected = fused(images)
    before = {key: value.clone() for key, value in fused.state_dict().items()}
    graph = torch.fx.experimental.optimization.fuse(torch.fx.symbolic_trace(fused))
    assert_same(graph(images), expected)
    assert len([layer for layer in graph.modules() if isinstance(layer, nn.Conv2d)]) == 8
    again = pytest.importorskip("mmcv.cnn.utils").fuse_conv_bn(copy.deepcopy(fused))
    assert count_fusable(fused) == 0
    with pytest.warns(UserWarning, match="nothing to fuse in this VanillaNet"):
        ours = fuse_model(fused)
    for model in (again, ours):
        assert list(model.state_dict()) == list(before)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert_same(model(images), expected, rtol=0, atol=0)


@torch.no_grad()
def test_other_layouts_and_types(fused, images):
    expected = fused(images)
    fused.to(memory_format=torch.channels_last)
    assert_same(fused(images.to(memory_format=torch.channels_last)), expected)
    found = [output.float() for output in fused.to(torch.bfloat16)(images.to(torch.bfloat16))]
    assert_same(found, expected, 0.1, 0.1 * float(max(out.abs().max() for out in expected)))
