"""torch.compile in a training, with what changes while it runs."""

import copy
import shutil
from contextlib import nullcontext

import pytest
import torch

from mmvanilla import VanillaNet, get_act_lambda, set_act_lambda
from mmvanilla.apis.runners import build_test_runner
from tests import toy_training
from tests.helpers import release

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"),
]


def train(folder, name, options):
    """Train the toy with λ, EMA, layer decay and channels_last; return what its hook saw."""
    config = toy_training.write_config(folder / f"{name}.py")
    options = {**options, "default_hooks.channels_last": dict(type="ChannelsLastHook")}
    return toy_training.train(config, folder / name, cfg_options=options).seen


@pytest.fixture
def _no_fallback():
    """Let the compiler fail where it would go on uncompiled after too many variants."""
    import torch._dynamo

    torch._dynamo.reset()
    name = "fail_on_recompile_limit_hit"
    changes = {name: True} if hasattr(torch._dynamo.config, name) else {}
    with torch._dynamo.config.patch(changes) if changes else nullcontext():
        yield


def assert_trains_the_same(folder, compiled, **options):
    plain = train(folder, "plain", options)
    found = train(folder, "compiled", {**options, "compile": compiled})
    assert (
        found["lambdas"]
        == plain["lambdas"]
        == pytest.approx([0, 0, *[1 / 3] * 2, *[2 / 3] * 2, 1, 1])
    )
    assert found["losses"] == pytest.approx(plain["losses"], rel=1e-2)
    assert plain["losses"][0] > 1.3 * plain["losses"][-1]
    for key, value in plain["ema"].items():
        # The statistics count each batch once, also where activations are recomputed.
        if key.endswith(("running_var", "num_batches_tracked")):
            torch.testing.assert_close(found["ema"][key], value, rtol=2e-2, atol=1e-3)


@pytest.mark.usefixtures("_no_fallback")
@pytest.mark.parametrize("merge", [False, True])
def test_with_lambda_and_averages(tmp_path, merge):
    # Without generated code, which takes much longer; that is the last test's.
    options = {"custom_hooks.0.merge": merge}
    assert_trains_the_same(tmp_path, dict(backend="eager"), **options)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("_no_fallback")
def test_with_recomputed_activations(tmp_path):
    options = {"model.backbone.with_cp": True}
    assert_trains_the_same(tmp_path, dict(backend="aot_eager"), **options)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("_no_fallback")
def test_with_the_default_compiler_and_testing(tmp_path):
    assert_trains_the_same(tmp_path, True)
    accuracies = []
    for compiled in (False, True):
        runner = build_test_runner(
            str(tmp_path / "plain.py"),
            str(tmp_path / "plain" / "epoch_4.pth"),
            work_dir=str(tmp_path / f"test_{compiled}"),
            cfg_options=dict(compile=compiled),
        )
        accuracies.append(runner.test())
        release(runner)
    assert accuracies[0] == accuracies[1]


@pytest.mark.exhaustive
@pytest.mark.usefixtures("_no_fallback")
def test_the_default_compiler_compiles_below_1_and_at_1_only():
    from torch._inductor.compile_fx import compile_fx

    net = VanillaNet(dict(dims=(4, 8), strides=(2,))).train()
    plain, compiled = copy.deepcopy(net), []

    def backend(graph, inputs):
        compiled.append(get_act_lambda(net))
        return compile_fx(graph, inputs)

    fast, images = torch.compile(net, backend=backend), torch.rand(2, 3, 32, 32)
    for step in range(12):  # more values than torch compiles before it gives up
        outputs = []
        for model, module in ((net, fast), (plain, plain)):
            set_act_lambda(model, step / 11)
            outputs.append(module(images)[-1])
            outputs[-1].square().mean().backward()
        torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    assert set(compiled) == {0.0, 1.0}
