import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvanilla import ConvPair, VanillaNet, count_fusable, fuse_model
from mmvanilla.apis.complexity import measure_complexity
from mmvanilla.models.archs import ARCHS
from tests.helpers import TINY, randomise, relative_difference, tiny_arch

# README's table: params in millions and MACs in billions at 224, deploy form with a classifier of
# 1000 classes, and params of the training form; equal to the published table to its rounding.
PUBLISHED = {
    "5": (15.52, 5.16, 22.33),
    "6": (32.51, 5.99, 56.12),
    "7": (32.80, 6.89, 56.67),
    "8": (37.10, 7.74, 65.18),
    "9": (41.40, 8.58, 73.68),
    "10": (45.69, 9.42, 82.19),
    "11": (49.99, 10.26, 90.69),
    "12": (54.29, 11.10, 99.20),
    "13": (58.59, 11.94, 107.70),
    "13-1.5x": (127.80, 26.55, 236.94),
    "13-1.5x-ada": (127.80, 48.98, 236.94),
}


@pytest.mark.parametrize("name", ARCHS)
def test_params_and_macs_equal_the_published_table(name):
    numbers = []
    for deploy in (True, False):
        with torch.device("meta"):
            net = VanillaNet(name, deploy=deploy)
            channels = net.arch.dims[-1]
            head = ConvPair(channels, 1000, 1, last_norm=False, deploy=deploy)
        numbers.append(sum(p.numel() for part in (net, head) for p in part.parameters()) / 1e6)
        if deploy:
            numbers.append((measure_complexity(net, (224, 224)).macs + channels * 1000) / 1e9)
    assert tuple(round(number, 2) for number in numbers) == PUBLISHED[name]


@pytest.mark.parametrize("name", ARCHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_fusing_is_exact_at_every_level(name, dtype, tolerance):
    net = randomise(VanillaNet(tiny_arch(name))).to(dtype).eval()
    size = (224, 224) if net.arch.is_adaptive else (75, 100)
    x = torch.randn(2, 3, *size, dtype=dtype)
    num_fused = count_fusable(net)
    fused = fuse_model(net)
    assert num_fused == 2 * len(net.arch.dims)
    with torch.no_grad():
        expected, found = net(x), fused(x)
    assert len(expected) == len(net.out_indices)
    for before, after in zip(expected, found, strict=True):
        assert relative_difference(before, after) < tolerance


@pytest.mark.parametrize("name", ARCHS)
@torch.no_grad()
def test_levels_are_the_right_layers_sizes_and_channels(name):
    net = VanillaNet(tiny_arch(name)).eval()
    is_adaptive = name == "13-1.5x-ada"
    assert net.fixed_input_size == ((224, 224) if is_adaptive else None)
    out = x = torch.randn(1, 3, *((224, 224) if is_adaptive else (97, 131)))
    layers = []
    for module in (net.stem, *net.blocks):
        out = module(out)
        layers.append(out)
    outs = net(x)
    assert tuple(out.shape[1] for out in outs) == net.out_channels
    if is_adaptive:
        assert [tuple(out.shape[2:]) for out in outs] == [(10, 10)]
        assert torch.equal(outs[0], layers[-1])
        return
    for level, out in enumerate(outs):
        assert out.shape[2:] == (24 >> level, 32 >> level)
        same_size = [layer for layer in layers if layer.shape[2:] == out.shape[2:]]
        assert torch.equal(out, same_size[-1])


def test_out_indices_select_and_negative_ones_count_from_the_coarsest():
    x = torch.randn(1, 3, 64, 64)
    net = randomise(VanillaNet(TINY)).eval()
    some = VanillaNet(TINY, out_indices=(1, -1)).eval()
    some.load_state_dict(net.state_dict())
    assert some.out_indices == (1, 3) and some.out_channels == (16, 24)
    all_outs = net(x)
    assert all(torch.equal(a, all_outs[i]) for a, i in zip(some(x), (1, 3), strict=True))
    assert VanillaNet(TINY, out_indices=2).out_channels == (24,)


def test_adaptive_pooling_serves_one_level_and_one_size():
    arch = tiny_arch("13-1.5x-ada")
    with pytest.raises(ValueError, match=r"out of \[3\]"):
        VanillaNet(arch, out_indices=(0, 1, 2, 3))
    with pytest.raises(ValueError, match="224x224 inputs only, found 256x224"):
        VanillaNet(arch)(torch.randn(1, 3, 256, 224))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        *(
            (dict(out_indices=i), r"out of \[0, 1, 2, 3\]")
            for i in [(4,), (-5,), (2, 1), (1, 1), ()]
        ),
        (dict(act_num=-1), "act_num"),
        (dict(act_num=1.5), "act_num"),
        (dict(frozen_stages=5), "frozen_stages"),
    ],
)
def test_arguments_out_of_range_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        VanillaNet(TINY, **kwargs)


def test_arguments_reach_the_layers():
    net = VanillaNet(
        TINY, in_channels=1, act_num=1, act_cfg=dict(type="SiLU"), norm_cfg=dict(type="BN")
    )
    assert net.stem.conv.first.conv.weight.shape == (8, 1, 4, 4)
    assert net.blocks[0].act.conv.conv.weight.shape == (8, 1, 3, 3)
    assert isinstance(net.blocks[0].act.act, nn.SiLU)
    # The authors' eps also where norm_cfg does not say one: mmcv's would be 1e-5.
    assert {m.eps for m in net.modules() if isinstance(m, _BatchNorm)} == {1e-6}


@pytest.mark.parametrize(("frozen_stages", "last_frozen"), [(-1, -1), (0, 0), (1, 1), (4, 4)])
def test_frozen_stages_count_as_resnets_and_stay_frozen_when_fused(frozen_stages, last_frozen):
    # TINY: stem and block 0 at 1/4, then one block a level.
    net = VanillaNet(TINY, frozen_stages=frozen_stages)
    for _ in range(2):
        net.train()
        for layer, module in enumerate((net.stem, *net.blocks)):
            frozen = layer <= last_frozen
            assert all(parameter.requires_grad is not frozen for parameter in module.parameters())
            norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
            assert all(norm.training is not frozen for norm in norms)
        net.eval().switch_to_deploy()


def test_norm_eval_keeps_statistics():
    net = VanillaNet(TINY, norm_eval=True).train()
    before = copy.deepcopy(net.state_dict())
    net(torch.randn(2, 3, 64, 64))
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_initial_weights_are_the_authors_distribution():
    net = VanillaNet(dict(dims=(64, 64, 64), strides=(1, 2)))
    net.init_weights()
    conv = net.blocks[1].conv.first.conv
    assert conv.weight.std().item() == pytest.approx(0.02, rel=0.1) and conv.bias.abs().max() == 0


def test_switch_to_deploy_leaves_plain_convolutions_only():
    net = randomise(VanillaNet(TINY)).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = net(x)
    assert not net.deploy
    for _ in range(2):
        net.switch_to_deploy()
        assert net.deploy
        kinds = {type(module) for module in net.modules() if not list(module.children())}
        assert kinds == {nn.Conv2d, nn.MaxPool2d, nn.ReLU}
        for before, after in zip(expected, net(x), strict=True):
            assert relative_difference(before.detach(), after.detach()) < 1e-5
    assert set(net.state_dict()) == set(VanillaNet(TINY, deploy=True).state_dict())
    for weight in net.parameters():
        # Strides of (1, 1, C, C) also pass is_contiguous() for a 1x1 weight, and run slower.
        assert weight.stride() == torch.empty(weight.shape).stride()


def test_layer_depths_run_from_the_stem_to_what_follows():
    net = VanillaNet(TINY)
    assert net.get_layer_depth("backbone.stem.conv.first.conv.weight", "backbone.") == (0, 6)
    assert net.get_layer_depth("backbone.blocks.3.act.conv.norm.bias", "backbone.") == (4, 6)
    assert net.get_layer_depth("neck.convs.0.weight", "backbone.") == (5, 6)
    assert net.get_layer_depth("blocks.0.conv.weight") == (1, 6)
