"""The same on the CPU, on a GPU, and on the meta device, which finds tensors made elsewhere."""

import pytest
import torch

from mmvanilla import VanillaNet, fuse_model, set_act_lambda
from mmvanilla.utils.numerics import largest, relative_difference
from tests.helpers import TINY, randomise, tiny_arch


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch):
    """On a GPU, fp32 without TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def net_on(device, **kwargs):
    return randomise(VanillaNet(TINY, **kwargs)).to(device)


def images_on(device):
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).to(device)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@torch.no_grad()
def test_fused_net_gives_the_same_outputs_and_stays_on_its_device(device):
    net, images = net_on(device).eval(), images_on(device)
    expected, found = net_on("cpu").eval()(images.cpu()), net(images)
    assert largest(map(relative_difference, expected, (out.cpu() for out in found))) < 1e-4
    net.switch_to_deploy()
    assert largest(map(relative_difference, found, net(images))) < 1e-4
    assert all(weight.device.type == device for weight in net.parameters())


@pytest.mark.parametrize(("with_cp", "act_lambda"), [(False, 0.5), (True, 1.0)])
@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("cpu", "bf16"),
        *(pytest.param("cuda", kind, marks=pytest.mark.gpu) for kind in ("fp16", "bf16", None)),
    ],
)
def test_deep_training_step_under_autocast(device, act_lambda, with_cp, kind):
    net = net_on(device, with_cp=with_cp).train()
    set_act_lambda(net, act_lambda)
    before = net.stem.conv.first.conv.weight.clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    scaler = torch.cuda.amp.GradScaler(1024.0, enabled=kind == "fp16")
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(kind)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast(device, dtype, enabled=kind is not None):
            loss = sum(out.float().square().mean() for out in net(images_on(device)))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert loss.isfinite()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and weight.grad.device == weight.device, name
        assert weight.dtype == torch.float32 and weight.isfinite().all(), name
    assert not torch.equal(net.stem.conv.first.conv.weight, before)
    counters = [value for name, value in net.named_buffers() if "num_batches" in name]
    assert {int(counter) for counter in counters} == {3}  # once a step, also when recomputed


@pytest.mark.parametrize("name", ["5", "13"])
@pytest.mark.parametrize("act_lambda", [0.5, 1.0])
def test_no_tensor_is_made_on_another_device(name, act_lambda):
    """The meta device refuses to mix with the CPU, as a GPU does."""
    net = VanillaNet(tiny_arch(name)).to("meta")
    images = torch.empty(2, 3, 64, 64, device="meta")
    set_act_lambda(net, act_lambda)
    loss = sum(out.mean() for out in net.train()(images))
    loss.backward()
    assert all(weight.grad.is_meta for weight in net.parameters())
    set_act_lambda(net, 1.0)
    fuse_model(net.eval(), inplace=True)
    assert net.deploy and all(weight.is_meta for weight in net.parameters())
    assert all(out.is_meta for out in net(images))
