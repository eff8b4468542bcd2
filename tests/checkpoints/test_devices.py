"""Weights that were saved on one device are read on another."""

import pytest
import torch

from mmvanilla import VanillaNet, set_act_lambda
from mmvanilla.checkpoints.reading import read_checkpoint
from mmvanilla.checkpoints.writing import write_checkpoint
from tests.helpers import TINY, randomise, relative_difference


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return request.param


def saved(path, device, zipped=True):
    net = randomise(VanillaNet(TINY)).to(device)
    set_act_lambda(net, 0.5)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.randn(2, 3, 64, 64, device=device))[-1].mean().backward()
    optimizer.step()
    content = dict(state_dict=net.state_dict(), optimizer=optimizer.state_dict())
    if zipped:
        write_checkpoint(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=False)
    return net


def tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("target", ["cpu", "meta", None])
def test_what_was_saved_on_a_device_is_read_on_another(device, target, zipped, tmp_path):
    net = saved(tmp_path / "net.pth", device, zipped)
    content = read_checkpoint(tmp_path / "net.pth", target)
    found = list(tensors(content))
    assert len(found) > 2 * len(list(net.parameters()))
    assert {tensor.device.type for tensor in found} == {target or "cpu"}
    weights = net.state_dict()
    assert {name: value.shape for name, value in content["state_dict"].items()} == {
        name: value.shape for name, value in weights.items()
    }
    if target != "meta":
        assert all(
            torch.equal(value, weights[name].cpu()) for name, value in content["state_dict"].items()
        )


def test_what_was_saved_on_a_cpu_is_loaded_on_a_device(device, tmp_path):
    net = saved(tmp_path / "net.pth", "cpu").eval()
    content = read_checkpoint(tmp_path / "net.pth", device)
    assert {tensor.device.type for tensor in tensors(content)} == {device}
    twin = VanillaNet(TINY).to(device).eval()
    twin.load_state_dict(content["state_dict"])
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(net(images), twin(images.to(device)), strict=True):
            assert relative_difference(ours, theirs.cpu()) < 2e-2  # with TF32 on a GPU
    fused = VanillaNet(TINY, deploy=True).to(device)
    with pytest.raises(RuntimeError, match="λ"):  # 0.5, which must not be lost on the way
        fused.load_state_dict(content["state_dict"])
    for key in [key for key in content["state_dict"] if key.endswith("act_lambda")]:
        del content["state_dict"][key]
    fused.load_state_dict(content["state_dict"])
    assert all(weight.device.type == device for weight in fused.parameters())


def test_callable_and_table_of_devices_are_understood(device, tmp_path):
    saved(tmp_path / "net.pth", device)
    where = "cuda:0" if device == "cuda" else "cpu"
    for location in ({where: "meta"}, lambda storage, place: storage):
        content = read_checkpoint(tmp_path / "net.pth", location)
        kinds = {tensor.device.type for tensor in tensors(content["state_dict"])}
        assert ("meta" in kinds) == isinstance(location, dict)
