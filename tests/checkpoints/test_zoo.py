"""The ``vanillanet://`` scheme, against a server on this machine."""

import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint

from mmvanilla import ARCHS, Arch, VanillaNet
from mmvanilla.checkpoints import download, zoo
from mmvanilla.checkpoints.safe_loading import safe_loading
from mmvanilla.models.published import PUBLISHED, RELEASE_URL, PublishedFile
from tests.authors_model import authors_weights
from tests.helpers import DATA

NAMES = ["tiny5.official.pth", "tiny5.official.pth.sha256"]
TINY5 = dict(dims=(16, 32, 64, 128), strides=(2, 2, 2))


class Mirror:
    """Serves a dict of files over HTTP and remembers what it was asked for."""

    def __init__(self):
        self.files, self.truncated, self.requests = {}, set(), []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.rpartition("/")[2]
                mirror.requests.append(name)
                if name not in mirror.files:
                    self.send_error(404)
                    return
                content = mirror.files[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                length = len(content) // (2 if name in mirror.truncated else 1)
                self.wfile.write(content[:length])

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/release/ckpt"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(timeout=10)


def add_small_names():
    """Published files of a size for tests: ``tiny``, a classifier, and ``tiny-act4``."""
    ARCHS["tiny"] = Arch(**TINY5)
    PUBLISHED["tiny"] = PublishedFile("tiny5.official.pth", "tiny")
    PUBLISHED["tiny-act4"] = PublishedFile("tiny5_act4.pth", "tiny", act_num=4)


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    before = dict(ARCHS), dict(PUBLISHED)
    add_small_names()
    mirror = Mirror()
    mirror.files["tiny5.official.pth"] = (DATA / "tiny5.official.pth").read_bytes()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("MMVANILLA_ZOO", mirror.url)
    monkeypatch.setenv("no_proxy", "*")
    yield mirror
    mirror.close()
    for table, content in zip((ARCHS, PUBLISHED), before, strict=True):
        table.clear()
        table.update(content)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "torch" / "hub" / "checkpoints"


def expected_backbone():
    weights = torch.load(DATA / "tiny5.official.pth", weights_only=False)["model_ema"]
    return weights["stem1.0.weight"]


def test_init_cfg_fetches_once_and_then_needs_no_server(mirror, cache):
    init_cfg = dict(type="Pretrained", checkpoint="vanillanet://tiny", prefix="backbone.")
    backbone = VanillaNet(TINY5, init_cfg=init_cfg)
    backbone.init_weights()
    assert torch.equal(backbone.stem.conv.first.conv.weight, expected_backbone())
    assert mirror.requests == ["tiny5.official.pth"]
    assert sorted(file.name for file in cache.iterdir()) == NAMES
    assert (cache / "tiny5.official.pth").read_bytes() == mirror.files["tiny5.official.pth"]
    mirror.close()
    again = VanillaNet(TINY5, init_cfg=init_cfg, deploy=True)
    again.init_weights()
    x = torch.rand(1, 3, 64, 64)
    for ours, fused in zip(backbone.eval()(x), again.eval()(x), strict=True):
        torch.testing.assert_close(fused, ours, rtol=1e-4, atol=1e-5 * ours.abs().max().item())


def test_the_address_of_a_published_file_means_its_name(mirror):
    """So the addresses in the metafiles can be given to any loader."""
    by_name = CheckpointLoader.load_checkpoint("vanillanet://tiny")["state_dict"]
    address = f"{RELEASE_URL}/tiny5.official.pth"
    with safe_loading():
        again = CheckpointLoader.load_checkpoint(address)["state_dict"]
    for found in (CheckpointLoader.load_checkpoint(address)["state_dict"], again):
        assert found.keys() == by_name.keys()
        assert all(torch.equal(found[key], by_name[key]) for key in by_name)
    gray = CheckpointLoader.load_checkpoint(f"{address}?in_channels=1")["state_dict"]
    assert gray["backbone.stem.conv.first.conv.weight"].shape[1] == 1
    with pytest.raises(ValueError, match="unknown published weights 'other.pth'; choose from 5"):
        CheckpointLoader.load_checkpoint(f"{RELEASE_URL}/other.pth")


@pytest.mark.toolbox("mmpretrain")
def test_a_whole_classifier_loads_by_name(mirror):
    from mmpretrain.models import ImageClassifier

    import mmvanilla.cls_head  # noqa: F401

    classifier = ImageClassifier(
        backbone=dict(type="VanillaNet", arch=TINY5),
        head=dict(type="VanillaNetClsHead", num_classes=10, in_channels=128),
    )
    load_checkpoint(classifier, "vanillanet://tiny", strict=True)
    expected = torch.load(DATA / "tiny5.expected.pth", weights_only=True)
    with torch.no_grad():
        logits = classifier.eval()(expected["input"], mode="tensor")
    wanted = expected["outputs"]["1.0"]["logits"]
    torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.toolbox("mmpretrain")
def test_the_inferencer_takes_a_name(mirror):
    from mmpretrain.apis import ImageClassificationInferencer

    pipeline = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]
    config = Config(
        dict(
            default_scope="mmpretrain",
            custom_imports=dict(imports=["mmvanilla.cls_head"]),
            model=dict(
                type="ImageClassifier",
                data_preprocessor=dict(mean=[0, 0, 0], std=[255, 255, 255]),
                backbone=dict(type="VanillaNet", arch=TINY5),
                head=dict(type="VanillaNetClsHead", num_classes=10, in_channels=128),
            ),
            test_dataloader=dict(dataset=dict(type="CIFAR10", pipeline=pipeline)),
        )
    )
    inferencer = ImageClassificationInferencer(config, pretrained="vanillanet://tiny", device="cpu")
    weight = inferencer.model.backbone.stem.conv.first.conv.weight
    assert torch.equal(weight, expected_backbone())
    answer = inferencer(np.zeros((64, 64, 3), np.uint8))[0]
    assert answer["pred_class"] in inferencer.classes and len(inferencer.classes) == 10


def test_a_name_with_a_number_of_channels(mirror):
    plain = CheckpointLoader.load_checkpoint("vanillanet://tiny")["state_dict"]
    gray = CheckpointLoader.load_checkpoint("vanillanet://tiny?in_channels=1")["state_dict"]
    key = "backbone.stem.conv.first.conv.weight"
    torch.testing.assert_close(gray.pop(key), plain.pop(key).sum(dim=1, keepdim=True))
    assert gray.keys() == plain.keys()
    with pytest.raises(ValueError, match="choose from.*tiny"):
        CheckpointLoader.load_checkpoint("vanillanet://none?in_channels=1")


def test_map_location(mirror):
    checkpoint = CheckpointLoader.load_checkpoint("vanillanet://tiny", map_location="meta")
    assert checkpoint["state_dict"]["backbone.stem.conv.first.conv.weight"].is_meta


@pytest.mark.parametrize("spoil", ["missing", "truncated", "html", "other network", "attack"])
def test_a_bad_answer_leaves_nothing_and_says_what_to_do(mirror, cache, tmp_path, spoil):
    name = "tiny5.official.pth"
    reasons = dict(missing="404", truncated="the connection ended after", html="cannot be read")
    if spoil == "missing":
        del mirror.files[name]
    elif spoil == "truncated":
        mirror.truncated.add(name)
    elif spoil == "html":
        mirror.files[name] = b"<html>please log in</html>"
        reasons["html"] = "the fetched file"
    else:
        content = dict(model={"conv1.weight": torch.zeros(1)})
        if spoil == "attack":
            content["args"] = _Attack(tmp_path / "victim")
        torch.save(content, tmp_path / "served")
        mirror.files[name] = (tmp_path / "served").read_bytes()
        reasons |= {"other network": "not VanillaNet weights", "attack": "refused"}
    with pytest.raises(RuntimeError) as caught:
        CheckpointLoader.load_checkpoint("vanillanet://tiny")
    message = str(caught.value)
    assert f"cannot fetch {name} from {mirror.url}/{name}" in message
    assert reasons[spoil] in message
    assert f"put it at {cache / name}" in message and "MMVANILLA_ZOO" in message
    assert "\n" not in message and ".part" not in message
    assert list(cache.iterdir()) == []
    assert not (tmp_path / "victim").exists()


class _Attack:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return (os.system, (f"touch {self.victim}",))


def test_another_act_num_than_the_name_says(mirror, cache):
    mirror.files["tiny5_act4.pth"] = mirror.files["tiny5.official.pth"]
    with pytest.raises(RuntimeError, match="act_num=3; expected a classifier .* act_num=4"):
        CheckpointLoader.load_checkpoint("vanillanet://tiny-act4")
    assert list(cache.iterdir()) == []


def test_no_network(monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("MMVANILLA_ZOO", url)
    monkeypatch.setenv("no_proxy", "*")
    place = tmp_path / "hub" / "checkpoints" / "vanillanet_13_act_num_4_kd_pretrain.pth"
    with pytest.raises(RuntimeError) as caught:
        CheckpointLoader.load_checkpoint("vanillanet://13-act4")
    assert f"{url}/{place.name}" in str(caught.value)
    assert f"put it at {place}" in str(caught.value)


def test_the_address_without_a_mirror(monkeypatch, tmp_path):
    asked = []

    def refuse(request, timeout):
        asked.append(request.full_url)
        assert 0 < timeout <= 120
        raise OSError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("MMVANILLA_ZOO", raising=False)
    monkeypatch.setattr(download, "urlopen", refuse)
    with pytest.raises(RuntimeError, match="no route"):
        zoo.fetch("mask-rcnn-13")
    assert asked == [
        "https://github.com/huawei-noah/VanillaNet/releases/download/ckpt/"
        "mask_rcnn_vanillanet_13.pth"
    ]


def test_a_file_put_there_by_hand(mirror, cache):
    cache.mkdir(parents=True)
    (cache / "tiny5.official.pth").write_bytes(mirror.files["tiny5.official.pth"][:1000])
    with pytest.raises(ValueError, match="delete it to fetch it again"):
        CheckpointLoader.load_checkpoint("vanillanet://tiny")
    assert mirror.requests == []
    (cache / "tiny5.official.pth").write_bytes(mirror.files["tiny5.official.pth"])
    checkpoint = CheckpointLoader.load_checkpoint("vanillanet://tiny")
    assert torch.equal(
        checkpoint["state_dict"]["backbone.stem.conv.first.conv.weight"], expected_backbone()
    )
    assert mirror.requests == []


def test_what_was_fetched_is_checked_whenever_it_is_read_again(mirror, cache):
    CheckpointLoader.load_checkpoint("vanillanet://tiny")
    content = bytearray((cache / NAMES[0]).read_bytes())
    content[-1] ^= 1  # behind everything that a reader looks at
    (cache / NAMES[0]).write_bytes(content)
    with pytest.raises(ValueError, match="has changed since it was fetched.*delete both"):
        CheckpointLoader.load_checkpoint("vanillanet://tiny")
    for name in NAMES:
        (cache / name).unlink()
    CheckpointLoader.load_checkpoint("vanillanet://tiny")
    assert len(mirror.requests) == 2


def test_a_server_that_says_nothing_is_given_up(mirror, cache, monkeypatch):
    monkeypatch.setattr(download, "TIME_LIMIT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MMVANILLA_ZOO", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(RuntimeError, match="cannot fetch .*timed out"):
            CheckpointLoader.load_checkpoint("vanillanet://tiny")
    assert list(cache.iterdir()) == []


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="weights '14'; choose from 5, 6, .*retinanet-13"):
        CheckpointLoader.load_checkpoint("vanillanet://14")


def test_a_local_file(monkeypatch):
    checkpoint = CheckpointLoader.load_checkpoint(f"vanillanet://{DATA}/tiny5.official.pth")
    assert torch.equal(
        checkpoint["state_dict"]["backbone.stem.conv.first.conv.weight"], expected_backbone()
    )
    monkeypatch.chdir(DATA)
    relative = CheckpointLoader.load_checkpoint("vanillanet://./tiny5.official.pth")
    assert relative["state_dict"].keys() == checkpoint["state_dict"].keys()
    with pytest.raises(FileNotFoundError, match="no such file: /no/such"):
        CheckpointLoader.load_checkpoint("vanillanet:///no/such.pth")


def test_weights_of_another_act_num_name_both_and_what_fits(tmp_path):
    torch.save(authors_weights(TINY5["dims"]), tmp_path / "act3.pth")
    init_cfg = dict(type="Pretrained", checkpoint=f"vanillanet://{tmp_path}/act3.pth")
    with pytest.raises(RuntimeError, match="have act_num=3, but the model has act_num=4") as caught:
        VanillaNet(TINY5, act_num=4, init_cfg=init_cfg).init_weights()
    assert "no such weights are published" in str(caught.value)


def test_published_weights_that_fit_are_named():
    with torch.device("meta"):
        wanted, given = VanillaNet("13", act_num=4), VanillaNet("13", act_num=3)
    with pytest.raises(RuntimeError, match="vanillanet://13-act4 or vanillanet://mask-rcnn-13"):
        wanted.load_state_dict(given.state_dict(), assign=True)
    with pytest.raises(RuntimeError, match="trained with act_num=3: vanillanet://13"):
        given.load_state_dict(wanted.state_dict(), assign=True)


def test_the_authors_file_given_as_it_is():
    with pytest.raises(RuntimeError, match=r"vanillanet:///path/to/the/file\.pth, or convert"):
        load_checkpoint(VanillaNet(TINY5), str(DATA / "tiny5.official_deploy.pth"))


def _load_as_rank(rank, rendezvous, out):
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    add_small_names()
    try:
        CheckpointLoader.load_checkpoint("vanillanet://tiny")
        Path(out, f"rank{rank}").write_text("loaded")
    except RuntimeError as error:
        Path(out, f"rank{rank}").write_text(str(error))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("is_there", [True, False])
def test_two_processes(mirror, cache, tmp_path, is_there):
    if not is_there:
        mirror.files.clear()
    out = tmp_path / "out"
    out.mkdir()
    mp.spawn(_load_as_rank, (tmp_path / "rendezvous", out), nprocs=2)
    said = [(out / f"rank{rank}").read_text() for rank in range(2)]
    if is_there:
        assert said == ["loaded", "loaded"]
        assert mirror.requests == ["tiny5.official.pth"]
        assert sorted(file.name for file in cache.iterdir()) == NAMES
    else:
        assert all("cannot fetch tiny5.official.pth" in text for text in said)
