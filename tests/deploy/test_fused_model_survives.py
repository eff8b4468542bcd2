"""A fused model is plain PyTorch: whatever takes a module takes it."""

import copy
import pickle

import pytest
import torch
import torch.fx.experimental.optimization
from mmcv.cnn.utils import fuse_conv_bn

from mmvanilla import VanillaNet, count_fusable, fuse_model
from tests.helpers import randomise

TINY = dict(dims=(8, 16, 24, 32), strides=(2, 2, 2))


def export(model, images):
    program = pytest.importorskip("torch.export").export(model, (images,))
    return program.module() if hasattr(program, "module") else program


WAYS = {
    "pickle": lambda model, images: pickle.loads(pickle.dumps(model)),
    "trace": lambda model, images: torch.jit.trace(model, torch.randn(1, 3, 50, 70)),
    "export": export,
    "fx": lambda model, _: torch.fx.experimental.optimization.fuse(torch.fx.symbolic_trace(model)),
    "mmcv": lambda model, images: fuse_conv_bn(copy.deepcopy(model)),
    "channels_last": lambda model, images: model.to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_it_computes_the_same_by_every_way(way):
    fused = fuse_model(randomise(VanillaNet(TINY)).eval())
    images = torch.randn(2, 3, 64, 96)
    expected = fused(images)
    found = WAYS[way](fused, images)(images)
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_nothing_is_left_to_fuse_and_it_is_one_graph():
    fused = fuse_model(randomise(VanillaNet(TINY)).eval())
    assert count_fusable(fused) == 0
    assert torch._dynamo.explain(fused)(torch.randn(1, 3, 64, 64)).graph_break_count == 0
