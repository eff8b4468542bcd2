"""The ``vanillanet://`` scheme, against a server on this machine."""

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint

from mmvanilla import VanillaNet
from mmvanilla.checkpoints import download, zoo
from mmvanilla.checkpoints.download import cache_path
from tests.checkpoints.conftest import TINY5
from tests.helpers import DATA

STEM = "backbone.stem.conv.first.conv.weight"


def expected_stem():
    weights = torch.load(DATA / "tiny5.official.pth", weights_only=False)["model_ema"]
    return weights["stem1.0.weight"]


def test_init_cfg_fetches_once_and_then_needs_no_server(mirror):
    init_cfg = dict(type="Pretrained", checkpoint="vanillanet://tiny", prefix="backbone.")
    backbone = VanillaNet(TINY5, init_cfg=init_cfg)
    backbone.init_weights()
    assert torch.equal(backbone.stem.conv.first.conv.weight, expected_stem())
    assert mirror.requests == ["tiny5.official.pth"]
    mirror.close()
    again = VanillaNet(TINY5, init_cfg=init_cfg, deploy=True)
    again.init_weights()
    x = torch.rand(1, 3, 64, 64)
    for ours, fused in zip(backbone.eval()(x), again.eval()(x), strict=True):
        torch.testing.assert_close(fused, ours, rtol=1e-4, atol=1e-5 * ours.abs().max().item())


def test_another_network_than_the_name_says(mirror, cache, tmp_path):
    mirror.files["tiny5_act4.pth"] = mirror.files["tiny5.official.pth"]
    with pytest.raises(RuntimeError, match=r"128\), 3\) .* expected \('classifier', .* 4\)"):
        CheckpointLoader.load_checkpoint("vanillanet://tiny-act4")
    torch.save(dict(model={"conv1.weight": torch.zeros(1)}), tmp_path / "served")
    mirror.files["tiny5.official.pth"] = (tmp_path / "served").read_bytes()
    with pytest.raises(RuntimeError, match="not VanillaNet weights of the authors"):
        CheckpointLoader.load_checkpoint("vanillanet://tiny")
    assert list(cache.iterdir()) == []


def test_without_a_network_the_error_says_where_to_put_the_file(mirror, cache):
    mirror.close()
    path = cache_path(f"{mirror.url}/tiny5.official.pth")
    with pytest.raises(RuntimeError, match=f"put it at {path}"):
        CheckpointLoader.load_checkpoint("vanillanet://tiny")
    path.write_bytes(mirror.files["tiny5.official.pth"][:1000])
    with pytest.raises(ValueError, match=f"{path} cannot be read"):
        CheckpointLoader.load_checkpoint("vanillanet://tiny")
    path.write_bytes(mirror.files["tiny5.official.pth"])
    checkpoint = CheckpointLoader.load_checkpoint("vanillanet://tiny")
    assert torch.equal(checkpoint["state_dict"][STEM], expected_stem())


def test_the_address_without_a_mirror(monkeypatch, tmp_path):
    def refuse(request, timeout):
        assert 0 < timeout <= 120
        raise OSError(f"no route to {request.full_url}")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("MMVANILLA_ZOO", raising=False)
    monkeypatch.setattr(download, "urlopen", refuse)
    address = "https://github.com/huawei-noah/VanillaNet/releases/download/ckpt"
    with pytest.raises(RuntimeError, match=f"no route to {address}/mask_rcnn_vanillanet_13.pth"):
        zoo.load_from_vanillanet("vanillanet://mask-rcnn-13")


def test_the_names_are_those_of_the_release():
    files = [
        *(f"vanillanet_{depth}.pth" for depth in range(5, 14)),
        "vanillanet_13_x1_5.pth",
        "vanillanet_13_x1_5_ada_pool.pth",
        "vanillanet_13_act_num_4_kd_pretrain.pth",
        "mask_rcnn_vanillanet_13.pth",
        "retinanet_vanillanet_13.pth",
    ]
    assert [entry.file for entry in zoo.PUBLISHED.values()] == files
    with pytest.raises(ValueError, match="weights '14'; choose from 5, 6, .*retinanet-13"):
        CheckpointLoader.load_checkpoint("vanillanet://14?in_channels=1")


def test_a_local_file(monkeypatch):
    checkpoint = CheckpointLoader.load_checkpoint(f"vanillanet://{DATA}/tiny5.official.pth")
    assert torch.equal(checkpoint["state_dict"][STEM], expected_stem())
    monkeypatch.chdir(DATA)
    relative = CheckpointLoader.load_checkpoint("vanillanet://./tiny5.official.pth")
    assert relative["state_dict"].keys() == checkpoint["state_dict"].keys()
    with pytest.raises(FileNotFoundError, match="No such file.*/no/such"):
        CheckpointLoader.load_checkpoint("vanillanet:///no/such.pth")


def test_the_authors_file_given_as_it_is():
    with pytest.raises(RuntimeError, match=r"vanillanet:///path/to/the/file\.pth"):
        load_checkpoint(VanillaNet(TINY5), str(DATA / "tiny5.official_deploy.pth"))
