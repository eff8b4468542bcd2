import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvanilla import set_act_lambda
from mmvanilla.models.block import BLOCKS, SeriesActivation, VanillaBlock
from mmvanilla.models.fusion import FusableLayer, count_fusable, fuse_model
from tests.helpers import randomise, relative_difference


@pytest.mark.parametrize("act_num", [0, 1, 3, 4])
def test_series_activation_is_relu_then_depthwise_then_norm(act_num):
    layer = randomise(SeriesActivation(5, act_num)).double().eval()
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64)
    conv, norm = layer.conv.conv, layer.conv.norm
    assert conv.weight.shape == (5, 1, 2 * act_num + 1, 2 * act_num + 1) and conv.bias is None
    # Written out: every output pixel is a weighted sum of its neighbourhood's activations.
    padded = nn.functional.pad(x.relu(), [act_num] * 4)
    sums = torch.zeros_like(x)
    for row in range(2 * act_num + 1):
        for column in range(2 * act_num + 1):
            window = padded[:, :, row : row + 9, column : column + 8]
            sums = sums + window * conv.weight[None, :, 0, row, column, None, None]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    expected = sums * scale[None, :, None, None] + shift[None, :, None, None]
    assert relative_difference(expected.detach(), layer(x).detach()) < 1e-12


def test_the_base_activation_may_be_another():
    layer = SeriesActivation(4, act_cfg=dict(type="GELU"))
    assert isinstance(layer.act, nn.GELU)


def test_a_block_convolves_pools_and_activates_in_this_order():
    block = randomise(VanillaBlock(4, 6, pool=nn.MaxPool2d(2))).eval()
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), block.act(block.pool(block.conv(x))))
    assert block(x).shape == (2, 6, 4, 4)


@pytest.mark.parametrize("deep_training", [True, False])
@pytest.mark.parametrize("series_activation", [True, False])
@pytest.mark.parametrize("shortcut", [None, "before_act", "after_act"])
@pytest.mark.parametrize("channels", [(6, 6), (4, 6)])
@pytest.mark.parametrize("pooled", [True, False])
def test_every_ablation_fuses_exactly(deep_training, series_activation, shortcut, channels, pooled):
    switches = dict(deep_training=deep_training, series_activation=series_activation)

    def build(deploy):
        pool = nn.MaxPool2d(2) if pooled else None
        block = BLOCKS[shortcut](*channels, pool=pool, deploy=deploy, **switches)
        return block.double().eval()

    block = randomise(build(deploy=False))
    num_fused = count_fusable(block)
    fused = fuse_model(block)
    x = torch.randn(2, channels[0], 9, 8, dtype=torch.float64)
    assert num_fused > 0
    assert not any(isinstance(module, FusableLayer) for module in fused.modules())
    assert relative_difference(block(x).detach(), fused(x).detach()) < 1e-9

    deploy = build(deploy=True)
    deploy.load_state_dict(fused.state_dict(), strict=True)
    assert torch.equal(deploy(x), fused(x))
    if shortcut != "after_act":
        convolutions = [m for m in fused.modules() if isinstance(m, nn.Conv2d)]
        assert len(convolutions) == 1 + series_activation


def test_shortcuts_add_the_input():
    x = torch.randn(2, 6, 8, 8)
    for shortcut in ("before_act", "after_act"):
        block = randomise(BLOCKS[shortcut](6, 6, pool=nn.MaxPool2d(2))).eval()
        if shortcut == "before_act":
            expected = block.act(block.pool(block.conv.conv(x) + x))
        else:
            expected = block.act(block.pool(block.conv(x))) + block.pool(x)
        assert torch.equal(block(x), expected)


def test_shortcuts_keep_the_keys_of_older_checkpoints():
    # As they were written before shortcuts became blocks of their own.
    pair = [
        f"conv.{part}.{name}"
        for part in ("first", "second")
        for name in (
            "conv.weight",
            "conv.bias",
            "norm.weight",
            "norm.bias",
            "norm.running_mean",
            "norm.running_var",
            "norm.num_batches_tracked",
        )
    ]
    pair.insert(7, "conv.act.act_lambda")
    norm = [name.removeprefix("conv.first.") for name in pair[2:7]]
    projection = ["conv.weight", "conv.bias", *norm]
    act = ["act.conv.conv.weight", *(f"act.conv.{name}" for name in norm)]
    early = [f"conv.{key}" for key in pair] + [f"conv.shortcut.{key}" for key in projection]
    late = [f"late_projection.{key}" for key in projection]
    assert list(VanillaBlock(4, 6).state_dict()) == pair + act
    assert list(BLOCKS["before_act"](4, 6).state_dict()) == early + act
    assert list(BLOCKS["after_act"](4, 6).state_dict()) == pair + late + act


def recomputing_pair(shortcut=None):
    """The same block twice: one that keeps its activations and one that recomputes them."""
    plain = randomise(BLOCKS[shortcut](4, 6, pool=nn.MaxPool2d(2))).train()
    recomputing = copy.deepcopy(plain)
    recomputing.with_cp = True
    return plain, recomputing


def backward_twice(block, x):
    loss = block(x).square().mean()
    loss.backward(retain_graph=True)
    loss.backward()


def several_losses(block, x):
    out = block(x)
    out.square().mean().backward(retain_graph=True)
    out.abs().mean().backward(retain_graph=True)
    torch.autograd.grad(out.sum(), list(block.parameters()), retain_graph=True)
    out.sum().backward()


def second_derivative(block, x):
    (gradient,) = torch.autograd.grad(block(x).square().mean(), x, create_graph=True)
    gradient.square().mean().backward()


def two_batches_then_backward(block, x):
    (block(x).square().mean() + block(2 * x + 1).mean()).backward()


USES = [backward_twice, several_losses, second_derivative, two_batches_then_backward]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("shortcut", BLOCKS)
@pytest.mark.parametrize("act_lambda", [0.5, 1.0])
def test_checkpointing_stands_every_kind_of_backward(use, shortcut, act_lambda):
    results = []
    for block in recomputing_pair(shortcut):
        set_act_lambda(block, act_lambda)
        x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        use(block, x)
        gradients = [p.grad for p in block.parameters() if p.grad is not None]
        results.append([*gradients, x.grad, *block.state_dict().values()])
    assert len(results[0]) == len(results[1])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_checkpointing_compiles(backend):
    torch._dynamo.reset()
    plain, recomputing = recomputing_pair()
    compiled = torch.compile(recomputing, backend=backend)
    for seed in range(2):
        x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
        for block in (plain, compiled):
            block(x).square().mean().backward()
    for expected, found in zip(plain.parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
    for name, expected in plain.state_dict().items():
        torch.testing.assert_close(recomputing.state_dict()[name], expected)
    norms = [module for module in recomputing.modules() if isinstance(module, _BatchNorm)]
    assert all(norm.num_batches_tracked == 2 and norm.momentum == 0.1 for norm in norms)


def test_checkpointing_changes_memory_and_nothing_else():
    results = []
    recomputing = None
    for block in recomputing_pair():
        recomputing = block
        x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        saved = []

        def keep(tensor, saved=saved):
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = block(x)
        # Read before backward: recomputing saves again, for a moment.
        kept = sum(saved)
        out.square().mean().backward()
        results.append((kept, [p.grad for p in block.parameters()], block.state_dict(), x.grad))
    (kept_plain, *expected), (kept_recomputing, *found) = results
    assert kept_recomputing < 0.5 * kept_plain
    assert all(torch.equal(a, b) for a, b in zip(expected[0], found[0], strict=True))
    assert all(torch.equal(expected[1][key], found[1][key]) for key in expected[1])
    assert torch.equal(expected[2], found[2])
    norms = [module for module in recomputing.modules() if isinstance(module, _BatchNorm)]
    assert all(norm.num_batches_tracked == 1 and norm.momentum == 0.1 for norm in norms)
