"""Packed convolutions compute what plain ones do, and step aside where they cannot."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from mmvanilla import VanillaNet, fuse_model, pack_for_cpu
from mmvanilla.models.packed_conv import PackedConv2d

try:
    from hypothesis import given
    from hypothesis import strategies as st
except ImportError:
    pytest.skip("hypothesis is not installed", allow_module_level=True)

TINY = dict(dims=(8, 16, 24, 32), strides=(2, 2, 2))

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch was built without oneDNN"
)


@pytest.fixture
def fused():
    net = fuse_model(VanillaNet(TINY).eval())
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
    monkeypatch.setattr(PackedConv2d, "_run_plain", None)  # not called
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
def test_loaded_weights_are_packed_anew(fused, images):
    packed = pack_for_cpu(fused)
    packed(images)
    for parameter in fused.parameters():
        parameter.mul_(0.5)
    packed.load_state_dict(fused.state_dict())
    assert_same(packed(images), fused(images))


def test_gradients_flow_to_the_input(fused, images):
    packed = pack_for_cpu(fused)
    packed(images)
    gradients = []
    for net in (packed, fused):
        x = images.clone().requires_grad_()
        net(x)[-1].sum().backward()
        gradients.append(x.grad)
    assert gradients[1].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_training_and_writing_are_refused(fused):
    packed = pack_for_cpu(fused)
    with pytest.raises(RuntimeError, match="for inference only: it cannot be trained"):
        packed.train()
    with pytest.raises(ValueError, match="empty parameter list"):
        torch.optim.AdamW(packed.parameters(), fused=True)
    conv = packed.stem.conv
    for name in ("weight", "bias"):
        with pytest.raises(AttributeError, match=f"its {name} cannot be read"):
            getattr(conv, name)
        with pytest.raises(AttributeError, match=f"its {name} cannot be set"):
            setattr(conv, name, nn.Parameter(torch.zeros(1)))


def test_wrong_weights_are_errors_as_in_a_plain_convolution():
    packed = pack_for_cpu(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, bias=False)))
    weights = packed.state_dict()
    for wrong, message in (
        ({**weights, "0.weight": torch.zeros(5, 3, 1, 1)}, "size mismatch for 0.weight"),
        ({key: weights[key] for key in weights if key != "0.bias"}, "Missing key.*0.bias"),
        ({**weights, "1.bias": torch.zeros(4)}, "Unexpected key.*1.bias"),
    ):
        with pytest.raises(RuntimeError, match=message):
            packed.load_state_dict(wrong)
        assert all(torch.equal(packed.state_dict()[key], weights[key]) for key in weights)


def has_fused_optimiser():
    """Whether a fused step runs on a CPU; in torch 2.1 it does not."""
    try:
        torch.optim.AdamW([nn.Parameter(torch.ones(1))], fused=True)
    except RuntimeError:
        return False
    return True


HAS_FUSED = has_fused_optimiser()
WRITES = {
    "source": lambda packed, source, _: source.weight.data.mul_(2),
    "optimiser": lambda packed, source, _: step(source, fused=HAS_FUSED),
    "foreach": lambda packed, source, _: step(source, foreach=True),
    "state dict": lambda packed, source, _: packed.state_dict()["0.weight"].mul_(2),
    "half": lambda packed, source, _: packed.half().float(),
    "double": lambda packed, source, _: packed.double().float(),
    "bfloat16": lambda packed, source, _: packed.to(torch.bfloat16).float(),
    "load": lambda packed, source, new: packed.load_state_dict(new),
    "assign": lambda packed, source, new: packed.load_state_dict(new, assign=True),
    "not strict": lambda packed, source, new: packed.load_state_dict(
        {"0.weight": new["0.weight"]}, strict=False
    ),
    "share": lambda packed, source, _: packed.share_memory(),
    "walk": lambda packed, source, _: [
        tensor.mul_(2) for tensor in (*packed.parameters(), *packed.buffers())
    ],
}


def step(conv, **kind):
    optimizer = torch.optim.AdamW(conv.parameters(), lr=1.0, **kind)
    conv.zero_grad()
    with torch.enable_grad():
        conv(torch.ones(1, 3, 2, 2)).sum().backward()
    optimizer.step()


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from([*WRITES, "copy", "pickle"]), st.booleans(), st.booleans(), st.booleans()
    ),
    max_size=8,
)


@given(OPERATIONS)
def test_whatever_is_written_it_computes_what_its_state_dict_says(operations):
    torch.manual_seed(0)
    source = nn.Conv2d(3, 4, 1)
    packed = pack_for_cpu(nn.Sequential(source), inplace=True)
    images = torch.randn(1, 3, 4, 4)
    for seed, (name, inference, afterwards, runs) in enumerate(operations):
        torch.manual_seed(seed)
        new = nn.Sequential(nn.Conv2d(3, 4, 1)).state_dict()
        if name == "copy":
            packed = copy.deepcopy(packed)
        elif name == "pickle":
            packed = pickle.loads(pickle.dumps(packed))
        else:
            # AdamW cannot step in inference mode.
            inference = inference and name not in ("optimiser", "foreach")
            with torch.inference_mode(inference):
                WRITES[name](packed, source, new)
        if afterwards and "0.weight" in new:
            for tensor in new.values():  # what was loaded stays the caller's
                tensor.mul_(3)
        if not runs:
            continue
        plain = nn.Sequential(nn.Conv2d(3, 4, 1))
        plain.load_state_dict(packed.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(packed(images), plain(images), rtol=1e-4, atol=1e-5)
        if name in ("load", "assign"):
            factor = 3 if afterwards else 1
            torch.testing.assert_close(
                factor * packed.state_dict()["0.weight"], new["0.weight"], rtol=1e-5, atol=0
            )


@torch.no_grad()
def test_other_types_and_tracing_run_plain(fused, images):
    packed = pack_for_cpu(fused)
    expected = packed(images)
    traced = torch.jit.trace(packed, images)
    compiled = torch.compile(packed, backend="eager")
    assert_same(compiled(images), expected)
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
    assert isinstance(fused.stem.conv, PackedConv2d)
    assert torch.equal(fused.state_dict()["stem.conv.weight"], weight)
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
