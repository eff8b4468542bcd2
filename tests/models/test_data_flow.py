"""A bias moves only where the norm behind is proven; everything computes what it did."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import ConvModule, build_conv_layer
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmvanilla import count_fusable, fuse_model
from mmvanilla.models.data_flow import norms_behind
from tests.helpers import randomise, relative_difference

PAIR = dict(type="ConvPair")
BN = dict(type="BN")
ORDERS = tuple(itertools.permutations(("conv", "norm", "act")))


def pair(bias=False):
    return build_conv_layer(PAIR, 4, 4, 3, padding=1, bias=bias)


def module(order=("conv", "norm", "act"), act=True, norm_cfg=BN):
    return ConvModule(
        4,
        4,
        3,
        padding=1,
        conv_cfg=PAIR,
        norm_cfg=norm_cfg,
        act_cfg=dict(type="ReLU") if act else None,
        order=order,
    )


def flatten(out):
    if isinstance(out, torch.Tensor):
        return [out]
    return [tensor for item in out for tensor in flatten(item)]


@torch.no_grad()
def check(model, num_moved):
    """Fused, the model computes what it did, and that many convolutions lost their bias."""
    randomise(model).double().eval()
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    expected = [tensor.clone() for tensor in flatten(model(x))]
    fused = fuse_model(model)
    for before, after in zip(expected, flatten(fused(x)), strict=True):
        assert relative_difference(before, after) < 1e-9
    convs = [part for part in fused.modules() if isinstance(part, nn.Conv2d)]
    assert sum(conv.bias is None for conv in convs) == num_moved
    return fused


class Layers(nn.Module):
    """Two pairs, two norms, and a forward of the subclass."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = pair(), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = pair(), nn.BatchNorm2d(4)


class PostActivation(Layers):
    num_moved = 2

    def forward(self, x):
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + x


class PreActivation(Layers):
    num_moved = 1  # bn2 takes what conv1 gives, bn1 what comes in

    def forward(self, x):
        return self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())


class ActivationBetween(Layers):
    num_moved = 0

    def forward(self, x):
        return self.bn2(self.conv2(self.bn1(self.conv1(x).relu())).relu())


class OutputUsedTwice(Layers):
    num_moved = 1

    def forward(self, x):
        out = self.conv1(x)
        return self.bn2(self.conv2(self.bn1(out))) + out


class OutputReturned(Layers):
    num_moved = 1

    def forward(self, x):
        out = self.conv1(x)
        return self.bn2(self.conv2(self.bn1(out))), out


class NormCalledTwice(Layers):
    num_moved = 1

    def forward(self, x):
        return self.bn2(self.conv2(self.bn1(self.bn1(self.conv1(x)))))


class NormShared(Layers):
    num_moved = 0

    def forward(self, x):
        return self.bn1(self.conv2(self.bn1(self.conv1(x)).relu()))


class ConvCalledTwice(Layers):
    num_moved = 1  # into two norms

    def forward(self, x):
        return self.bn2(self.conv1(self.bn1(self.conv1(x)).relu())) + self.conv2(x)


class ConvCalledOnceWithoutNorm(Layers):
    num_moved = 0

    def forward(self, x):
        return self.bn1(self.conv1(x)), self.conv1(x), self.bn2(self.conv2(x).abs())


class NormReadElsewhere(Layers):
    num_moved = 1

    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        return out + self.bn1.running_mean[:, None, None]


class NormsBiasRead(Layers):
    num_moved = 1

    def forward(self, x):
        return self.bn2(self.conv2(self.bn1(self.conv1(x)))) + self.bn1.bias.sum()


class BranchOnData(Layers):
    num_moved = 0

    def forward(self, x):
        out = self.conv1(x)
        if out.sum() > 1e9:
            out = out + 1
        return self.bn2(self.conv2(self.bn1(out)))


class BranchOnType(Layers):
    num_moved = 0

    def forward(self, x):
        out = self.conv1(x)
        if isinstance(out, torch.Tensor):
            out = out.relu()
        return self.bn2(self.conv2(self.bn1(out)))


class Checkpointed(Layers):
    """As ResNet's blocks are written: a closure, and a recomputation that is off."""

    num_moved = 2
    with_cp = False

    def forward(self, x):
        def inner(x):
            return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + x

        if self.with_cp and x.requires_grad:
            return checkpoint(inner, x)
        return inner(x)


class NormsForwardReplaced(PostActivation):
    num_moved = 1

    def __init__(self):
        super().__init__()
        self.bn1.forward = torch.sin


class HookOnThePair(PostActivation):
    num_moved = 1

    def __init__(self):
        super().__init__()
        self.conv1.register_forward_hook(lambda module, args, out: out.relu())


class HookOnTheNorm(PostActivation):
    num_moved = 1

    def __init__(self):
        super().__init__()
        self.bn1.register_forward_pre_hook(lambda module, args: (args[0].relu(),))


class NormWithoutStatistics(PostActivation):
    num_moved = 1

    def __init__(self):
        super().__init__()
        self.bn1 = nn.GroupNorm(2, 4)


class KeepsWhatItSaw(PostActivation):
    num_moved = 2
    seen = None

    def forward(self, x):
        self.seen = super().forward(x)
        return self.seen


@pytest.mark.parametrize(
    "network",
    [
        PostActivation,
        PreActivation,
        ActivationBetween,
        OutputUsedTwice,
        OutputReturned,
        NormCalledTwice,
        NormShared,
        ConvCalledTwice,
        ConvCalledOnceWithoutNorm,
        NormReadElsewhere,
        NormsBiasRead,
        BranchOnData,
        BranchOnType,
        Checkpointed,
        NormsForwardReplaced,
        HookOnThePair,
        HookOnTheNorm,
        NormWithoutStatistics,
        KeepsWhatItSaw,
    ],
    ids=lambda network: network.__name__,
)
def test_written_by_hand(network):
    fused = check(network(), network.num_moved)
    assert isinstance(getattr(fused, "seen", None), torch.Tensor | None)


def test_a_forward_of_the_instance_is_not_what_its_class_says():
    model = PostActivation().eval()
    assert len(norms_behind(model, [model.conv1, model.conv2])) == 2
    model.forward = lambda x: model.bn1(model.conv1(x).relu())
    assert norms_behind(model, [model.conv1, model.conv2]) == {}


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("act", [True, False])
def test_conv_module_in_every_order(order, act):
    follows = order.index("norm") - order.index("conv")
    check(module(order, act), int(follows == 1 or (follows == 2 and not act)))


class Caller(nn.Module):
    """Calls a ConvModule as the lambda says."""

    def __init__(self, call, **modules):
        super().__init__()
        self.call = call
        for name, part in modules.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.call(self, x)


@pytest.mark.parametrize(
    ("call", "num_moved"),
    [
        (lambda net, x: net.a(x), 1),
        (lambda net, x: net.a(net.a(x)), 1),
        (lambda net, x: net.a(x, norm=False), 0),
        (lambda net, x: net.a(x, activate=False), 0),
        (lambda net, x: net.a(x) + net.a(x, norm=False), 0),
        (lambda net, x: net.a(x) + net.a.conv(x), 0),
        (lambda net, x: net.a(x) + net.a.bn(x), 0),
        (lambda net, x: net.a.forward(x), 0),
        (lambda net, x: net.a(x) + net.a.bn.running_mean.sum(), 0),
    ],
)
def test_who_calls_a_block_must_be_proven_too(call, num_moved):
    check(Caller(call, a=module()), num_moved)


def test_what_the_traced_code_does_not_reach_is_not_proven():
    # A head that only its own methods run, and a root that cannot be traced.
    check(Caller(lambda net, x: net.a(x), a=module(), head=module()), 1)
    check(Caller(lambda net, x: net.a(x) if x.sum() > 0 else net.a(x, norm=False), a=module()), 0)


class Detector(nn.Module):
    """As the toolboxes' detectors: forward needs more than images, extract_feat does not."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(module(), module())
        self.head = module()

    def extract_feat(self, x):
        return self.backbone(x)

    def forward(self, x):
        feats = self.extract_feat(x)
        return feats if float(feats.sum()) > 1e12 else self.head(feats)


def test_a_detectors_features_are_proven_without_its_head():
    check(Detector(), 2)


def test_lists_sequences_and_loops():
    blocks = nn.ModuleList([module(), nn.Sequential(module(), module(("norm", "act", "conv")))])

    def call(net, x):
        for block in net.blocks:
            x = block(x)
        return x

    check(Caller(call, blocks=blocks), 2)


def test_a_shared_block_in_code_that_is_not_traced_is_not_proven():
    shared = module()
    rest = Caller(lambda net, x: net.a(x, norm=x.sum() < 0), a=shared)
    check(Caller(lambda net, x: net.rest(net.a(x)), a=shared, rest=rest), 0)


@pytest.mark.toolbox("mmseg")
def test_a_pyramid_pooling_with_norm_first():
    from mmseg.models.utils import DAPPM

    layers = dict(order=("norm", "act", "conv"), bias=False, conv_cfg=PAIR)
    model = DAPPM(4, 6, 8, 2, conv_cfg=layers)
    x = torch.randn(1, 4, 64, 64, dtype=torch.float64)
    randomise(model).double().eval()
    with torch.no_grad():
        expected = model(x)
        num_fused = count_fusable(model)
        fused = fuse_model(model)
        assert num_fused == 5
        assert relative_difference(expected, fused(x)) < 1e-9


def test_finding_leaves_no_trace():
    model = KeepsWhatItSaw().eval()
    before = dict(vars(model))
    assert len(norms_behind(model, [model.conv1, model.conv2])) == 2
    assert vars(model) == before


steps = st.lists(st.sampled_from(["conv", "norm", "act", "add", "block"]), min_size=1, max_size=9)


class Random(nn.Module):
    """A random program over random shared layers."""

    def __init__(self, program, orders, num_layers):
        super().__init__()
        self.program = program
        self.num_layers = num_layers
        self.conv = nn.ModuleList(pair() for _ in range(num_layers))
        self.norm = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(num_layers))
        self.block = nn.ModuleList(module(order) for order in orders)

    def forward(self, x):
        out = x
        for index, step in enumerate(self.program):
            if step == "act":
                out = out.relu()
            elif step == "add":
                x = out = out + 0.5 * x
            elif step == "block":
                out = self.block[index % len(self.block)](out)
            else:
                out = getattr(self, step)[index % self.num_layers](out)
        return out


@settings(max_examples=40, deadline=None)
@given(
    program=steps,
    orders=st.lists(st.sampled_from(ORDERS), min_size=1, max_size=3),
    num_layers=st.integers(1, 4),
)
def test_random_networks_compute_what_they_did(program, orders, num_layers):
    model = randomise(Random(program, orders, num_layers)).double().eval()
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        found = fuse_model(model)(x)
    # An activation may have cut everything to zero.
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max().clamp_min(1.0)
