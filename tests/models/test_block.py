import copy

import pytest
import torch
from torch import nn

from mmvanilla import set_act_lambda
from mmvanilla.models.block import SeriesActivation, VanillaBlock
from mmvanilla.models.fusion import count_fusable, fuse_model
from tests.helpers import randomise, relative_difference


@pytest.mark.parametrize("act_num", [0, 1, 3, 4])
def test_series_activation_is_activation_then_depthwise_then_norm(act_num):
    layer = randomise(SeriesActivation(5, act_num, act_cfg=dict(type="GELU"))).double().eval()
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64)
    conv, norm = layer.conv.conv, layer.conv.norm
    side = 2 * act_num + 1
    assert conv.weight.shape == (5, 1, side, side) and conv.bias is None
    # Written out: every output pixel is a weighted sum of its neighbourhood's activations.
    windows = nn.functional.pad(nn.functional.gelu(x), [act_num] * 4)
    windows = windows.unfold(2, side, 1).unfold(3, side, 1)
    sums = (windows * conv.weight[None, :, 0, None, None]).sum(dim=(4, 5))
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    expected = sums * scale[None, :, None, None] + shift[None, :, None, None]
    assert relative_difference(expected.detach(), layer(x).detach()) < 1e-12


@pytest.mark.parametrize("deep_training", [True, False])
@pytest.mark.parametrize("series_activation", [True, False])
@pytest.mark.parametrize("channels", [(6, 6), (4, 6)])
@pytest.mark.parametrize("pooled", [True, False])
def test_every_ablation_fuses_exactly(deep_training, series_activation, channels, pooled):
    switches = dict(deep_training=deep_training, series_activation=series_activation)

    def build(deploy):
        pool = nn.MaxPool2d(2) if pooled else None
        block = VanillaBlock(*channels, pool=pool, deploy=deploy, **switches)
        return block.double().eval()

    block = randomise(build(deploy=False))
    fused = fuse_model(block)
    x = torch.randn(2, channels[0], 9, 8, dtype=torch.float64)
    assert count_fusable(block) > 0 == count_fusable(fused)
    assert relative_difference(block(x).detach(), fused(x).detach()) < 1e-9

    deploy = build(deploy=True)
    deploy.load_state_dict(fused.state_dict(), strict=True)
    assert torch.equal(deploy(x), fused(x))
    convolutions = [m for m in fused.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 1 + series_activation


def recomputing_pair():
    """The same block twice: one that keeps its activations and one that recomputes them."""
    plain = randomise(VanillaBlock(4, 6, pool=nn.MaxPool2d(2))).train()
    recomputing = copy.deepcopy(plain)
    recomputing.with_cp = True
    return plain, recomputing


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


@pytest.mark.parametrize("use", [several_losses, second_derivative, two_batches_then_backward])
@pytest.mark.parametrize("act_lambda", [0.5, 1.0])
def test_checkpointing_stands_every_kind_of_backward(use, act_lambda):
    results = []
    for block in recomputing_pair():
        set_act_lambda(block, act_lambda)
        x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        use(block, x)
        gradients = [p.grad for p in block.parameters() if p.grad is not None]
        results.append([*gradients, x.grad, *block.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_checkpointing_keeps_less():
    kept = []
    for block in recomputing_pair():
        saved = []

        def keep(tensor, saved=saved):
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            block(torch.randn(3, 4, 8, 8, requires_grad=True))
        kept.append(sum(saved))
    assert kept[1] < 0.5 * kept[0]
