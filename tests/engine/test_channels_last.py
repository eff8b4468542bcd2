"""The memory format of the weights while a model runs, and what leaves in a checkpoint."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import nn

from mmvanilla import VanillaNet, fuse_model
from mmvanilla.apis.runners import build_test_runner
from mmvanilla.engine.channels_last import ChannelsLastHook, to_channels_last
from tests import toy_training
from tests.helpers import TINY, randomise, relative_difference, release

HOOK = dict(type="ChannelsLastHook")
COMMON = {"model.backbone.with_cp": True, "custom_hooks.1.update_buffers": True}


def is_plain(tensor):
    return tensor.stride() == torch.empty(tensor.shape).stride()


def train(folder, name, options, resume=None):
    config = toy_training.write_config(folder / f"{name}.py")
    return toy_training.train(config, folder / name, cfg_options=options, resume=resume)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training in both formats, with λ, EMA, layer decay and recomputed activations."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "plain": train(folder, "plain", COMMON),
        "ours": train(folder, "ours", {**COMMON, "default_hooks.channels_last": HOOK}),
        "folder": folder,
    }


def test_trains_the_same_in_the_format(runs):
    runner = runs["ours"]
    plain, ours = runs["plain"].seen, runner.seen
    assert ours["lambdas"] == plain["lambdas"] and ours["lambdas"][-1] == 1.0
    assert ours["losses"] == pytest.approx(plain["losses"], rel=1e-2)
    ends = [torch.load(runs["folder"] / name / "epoch_4.pth") for name in ("plain", "ours")]
    for key, value in ends[0]["state_dict"].items():  # of the averages
        if value.dim() == 4:
            assert relative_difference(value, ends[1]["state_dict"][key]) < 0.1, key
    averages = next(hook.ema_model for hook in runner.hooks if hasattr(hook, "ema_model"))
    for model in (runner.model, averages):
        weights = [p for p in model.parameters() if p.dim() == 4]
        assert weights
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    for parameter, state in runner.optim_wrapper.optimizer.state.items():
        assert state["exp_avg"].stride() == parameter.stride()
    assert not runner.model.backbone.stem.conv.first.conv.weight.is_contiguous()


def test_checkpoints_have_the_usual_strides(runs):
    for name in ("plain", "ours"):
        saved = torch.load(runs["folder"] / name / "epoch_4.pth", weights_only=True)
        parts = [
            saved["state_dict"],
            saved["ema_state_dict"],
            *saved["optimizer"]["state"].values(),
        ]
        found = [tensor for part in parts for tensor in part.values()]
        assert len(found) > 100 and all(map(is_plain, found))


def test_a_resumed_run_is_the_same_bit_for_bit(runs):
    expected, middle = runs["ours"].seen, str(runs["folder"] / "ours" / "epoch_2.pth")
    options = {**COMMON, "default_hooks.channels_last": HOOK}
    found = train(runs["folder"], "resumed", options, resume=middle).seen
    assert len(found["losses"]) == 4 and found["losses"] == expected["losses"][4:]
    for part in ("model", "ema"):
        for key, value in expected[part].items():
            assert torch.equal(found[part][key], value), key


def test_tests_in_the_format(runs):
    config, checkpoint = str(runs["folder"] / "ours.py"), str(runs["folder"] / "ours/epoch_4.pth")
    accuracies = []
    for hooks in ([], [HOOK]):
        folder = str(runs["folder"] / f"test_{len(hooks)}")
        options = dict(custom_hooks=hooks)
        runner = build_test_runner(config, checkpoint, folder, cfg_options=options)
        accuracies.append(runner.test())
        release(runner)
        weight = runner.model.backbone.stem.conv.first.conv.weight
        assert weight.is_contiguous() == (not hooks)
    assert accuracies[0] == accuracies[1]


def test_a_distributed_wrapper_is_made_again(tmp_path):
    """It would give the gradients of the first step in another order."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    try:
        gradients = []
        for channels_last in (False, True):
            net = randomise(VanillaNet(TINY)).double().train()
            runner = SimpleNamespace(
                model=MMDistributedDataParallel(net),
                wrap_model=lambda cfg, module: MMDistributedDataParallel(module),
                optim_wrapper=SimpleNamespace(optimizer=torch.optim.SGD(net.parameters(), lr=1.0)),
                hooks=[],
                cfg={},
            )
            before = runner.model
            if channels_last:
                ChannelsLastHook().before_train(runner)
            assert (runner.model is before) != channels_last
            del before
            x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
            sum(out.square().mean() for out in runner.model(x)).backward()
            # Those of biases before a norm are nothing but rounding.
            gradients.append([p.grad for p in net.parameters() if p.dim() == 4])
        for expected, found in zip(*gradients, strict=True):
            assert relative_difference(expected, found) < 1e-9
    finally:
        torch.distributed.destroy_process_group()


def test_a_fused_model_has_plain_strides():
    net = randomise(VanillaNet(TINY)).eval()
    to_channels_last(net)
    assert all(map(is_plain, fuse_model(net).state_dict().values()))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_networks_for_grey_images_compute_in_it_from_end_to_end(channels):
    model = VanillaNet(TINY, in_channels=channels).train()
    outside = []

    def look(module, inputs, output):
        ambiguous = 1 in (output.shape[1], output.shape[2] * output.shape[3])
        if not ambiguous and not output.is_contiguous(memory_format=torch.channels_last):
            outside.append(type(module).__name__)

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(look)
    images = torch.randn(2, channels, 64, 64)
    model(images)
    assert outside  # the usual format
    outside.clear()
    assert to_channels_last(model) > 0
    model(images)
    assert not outside
    assert to_channels_last(model) == 0
