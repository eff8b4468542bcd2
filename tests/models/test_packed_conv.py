"""Packed convolutions compute what plain ones do, and step aside where they cannot."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from mmvanilla import VanillaNet, fuse_model, pack_for_cpu
from mmvanilla.models.packed_conv import PackedConv2d

TINY = dict(dims=(8, 16, 24, 32), strides=(2, 2, 2))

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch was built without oneDNN"
)


@pytest.fixture
def fused():
    net = fuse_model(VanillaNet(TINY).eval()).model
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return net


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def assert_same(found, expected):
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@torch.no_grad()
def test_same_features_at_any_size_and_memory_format(fused, images):
    packed = pack_for_cpu(fused)
    assert sum(isinstance(module, PackedConv2d) for module in packed.modules()) == 8
    for batch in (images, torch.randn(1, 3, 50, 70), images.to(memory_format=torch.channels_last)):
        found = packed(batch)
        assert_same(found, fused(batch))
        assert all(level.is_contiguous(memory_format=torch.channels_last) for level in found)


@torch.no_grad()
def test_oneDNN_computes_it(fused, images, monkeypatch):
    packed = pack_for_cpu(fused)
    packed(images)
    first = packed.stem.conv._packed
    assert first is not None and first.is_mkldnn
    monkeypatch.setattr(nn.Conv2d, "forward", None)  # not called
    packed(images)
    assert packed.stem.conv._packed is first  # and packed once


@torch.no_grad()
def test_copies_and_state_dicts_are_those_of_plain_convolutions(fused, images):
    packed = pack_for_cpu(fused)
    expected = packed(images)
    assert list(packed.state_dict()) == list(fused.state_dict())
    assert_same(copy.deepcopy(packed)(images), expected)
    assert_same(pickle.loads(pickle.dumps(packed))(images), expected)
    file = io.BytesIO()
    torch.save(packed.state_dict(), file)
    file.seek(0)
    fused.load_state_dict(torch.load(file))
    assert_same(fused(images), expected)


@torch.no_grad()
def test_new_weights_are_packed_anew(fused, images):
    packed = pack_for_cpu(fused)
    packed(images)
    packed.load_state_dict({key: 0.5 * value for key, value in fused.state_dict().items()})
    for parameter in fused.parameters():
        parameter.mul_(0.5)
    assert_same(packed(images), fused(images))
    for module in packed.modules():
        if isinstance(module, PackedConv2d):
            module.weight = nn.Parameter(2 * module.weight)
    for name, parameter in fused.named_parameters():
        if name.endswith("weight"):
            parameter.mul_(2)
    assert_same(packed(images), fused(images))


def test_gradients_flow(fused, images):
    packed = pack_for_cpu(fused)
    with torch.no_grad():
        packed(images)
    for net in (packed, fused):
        net(images)[-1].sum().backward()
    found, expected = packed.stem.conv.weight.grad, fused.stem.conv.weight.grad
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_other_types_and_tracing_run_plain(fused, images):
    packed = pack_for_cpu(fused)
    expected = packed(images)
    traced = torch.jit.trace(packed, images)
    assert "mkldnn::_convolution_pointwise" not in str(traced.inlined_graph)
    assert_same(traced(images), expected)
    double = packed.double()(images.double())
    assert {level.dtype for level in double} == {torch.float64}
    assert_same([level.float() for level in double], expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert packed.float()(images)[0].dtype == torch.bfloat16


def test_model_itself_changes_only_when_asked(fused):
    assert pack_for_cpu(fused) is not fused
    assert type(fused.stem.conv) is nn.Conv2d
    weight = fused.stem.conv.weight
    assert pack_for_cpu(fused, inplace=True) is fused
    assert isinstance(fused.stem.conv, PackedConv2d) and fused.stem.conv.weight is weight
    assert pack_for_cpu(fused, inplace=True) is fused  # again: nothing to do


@torch.no_grad()
def test_a_shared_convolution_stays_shared_and_subclasses_stay_themselves():
    class Doubling(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    shared = nn.Conv2d(3, 3, 3, stride=2, padding=1, groups=3, bias=False)
    net = nn.Sequential(shared, shared, Doubling(3, 3, 1))
    packed = pack_for_cpu(net)
    assert packed[0] is packed[1] and isinstance(packed[0], PackedConv2d)
    assert type(packed[2]) is Doubling
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(packed(x), net(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_padding_that_oneDNN_does_not_know_runs_plain():
    for padding in (dict(padding="same"), dict(padding=1, padding_mode="reflect")):
        conv = nn.Conv2d(3, 4, 3, **padding)
        x = torch.randn(1, 3, 8, 8)
        torch.testing.assert_close(pack_for_cpu(nn.Sequential(conv))(x), conv(x))


@torch.no_grad()
def test_hooks_of_a_convolution_go_on_working():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    net[1].register_forward_hook(lambda module, args, out: 0 * out)
    packed = pack_for_cpu(net)
    assert isinstance(packed[0], PackedConv2d) and type(packed[1]) is nn.Conv2d
    assert packed(torch.randn(1, 3, 4, 4)).abs().max() == 0


@torch.no_grad()
def test_an_empty_batch_stays_one():
    packed = pack_for_cpu(nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert packed(torch.randn(0, 3, 8, 8)).shape == (0, 4, 6, 6)


def test_model_without_convolutions_is_refused():
    with pytest.raises(ValueError, match=r"Linear has no nn\.Conv2d"):
        pack_for_cpu(nn.Linear(2, 2))
