"""Checkpoints from addresses: the right ones, whole ones, and no code from them."""

import io
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.runner import CheckpointLoader, load_checkpoint

from mmvanilla.checkpoints import download, reading
from mmvanilla.checkpoints.download import cache_path
from mmvanilla.checkpoints.reading import read_checkpoint, use_safe_loaders
from tests.checkpoints.conftest import add_small_names
from tests.checkpoints.hostile import attack, call_by_reduce, checkpoint_with


def saved(value, legacy=False):
    file = io.BytesIO()
    torch.save(dict(w=torch.tensor(value)), file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def test_files_of_one_name_at_two_addresses_are_two_files(mirror, cache):
    paths = ["a/epoch_12.pth", "b/epoch_12.pth", "b/epoch_12.pth?v=2"]
    mirror.files.update({path: saved(value) for value, path in enumerate(paths)})
    for _ in range(2):
        for value, path in enumerate(paths):
            assert read_checkpoint(f"{mirror.url}/{path}")["w"] == value
    assert mirror.requests == paths
    assert all(path.name.endswith("-epoch_12.pth") for path in cache.iterdir())
    mirror.close()
    assert read_checkpoint(f"{mirror.url}/a/epoch_12.pth")["w"] == 0


BAD = {
    "a login page": b"<html>please log in</html>",
    "nothing": b"",
    "a weight that is no number": saved(float("nan")),
    "a short body": saved(1.0)[:-10],
    "a changed byte": saved(1.0).replace(torch.tensor(1.0).numpy().tobytes(), b"\0\0\0\0"),
    "a short body in the old format": saved(1.0, legacy=True)[:-1],
}


@pytest.mark.parametrize("kind", [*BAD, "a cut connection", "missing", "code"])
def test_what_comes_wrong_is_never_cached(mirror, cache, tmp_path, kind):
    url = f"{mirror.url}/out.pth"
    if kind == "code":
        value = attack("os.system", tmp_path / "victim", call_by_reduce)
        mirror.files["out.pth"] = checkpoint_with(value, tmp_path / "bad").read_bytes()
    elif kind == "a cut connection":
        mirror.files["out.pth"] = saved(1.0)
        mirror.cut.add("out.pth")
    elif kind != "missing":
        mirror.files["out.pth"] = BAD[kind]
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"^cannot fetch {url} ") as caught:
            read_checkpoint(url)
        assert "\n" not in str(caught.value) and str(cache_path(url)) in str(caught.value)
        assert ".unfinished" not in str(caught.value)
        assert list(cache.glob("*")) == []
    assert not (tmp_path / "victim").exists()
    mirror.files["out.pth"] = saved(2.0)
    mirror.cut.clear()
    assert read_checkpoint(url)["w"] == 2.0


def test_a_server_that_says_nothing_is_given_up(mirror, cache, monkeypatch):
    monkeypatch.setattr(download, "TIME_LIMIT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(RuntimeError, match="cannot fetch .*timed out"):
            read_checkpoint(f"http://127.0.0.1:{silent.getsockname()[1]}/x.pth")
    assert list(cache.iterdir()) == []


NAMES = ["torchvision://x", "modelzoo://x", "open-mmlab://x", "openmmlab://x"]


@pytest.mark.parametrize("address", ["{path}", "{url}", *NAMES, "vanillanet://{path}"])
def test_no_loader_of_mmengine_runs_code(monkeypatch, mirror, tmp_path, address):
    use_safe_loaders()
    victim = tmp_path / "victim"
    value = attack("os.system", victim, call_by_reduce)
    path = checkpoint_with(value, tmp_path / "bad.pth")
    mirror.files["bad.pth"] = path.read_bytes()
    url = f"{mirror.url}/bad.pth"
    for name in ("get_torchvision_models", "get_external_models"):
        monkeypatch.setattr(reading, name, lambda: {"x": url})
    address = address.format(path=path, url=url)
    for load in (read_checkpoint, CheckpointLoader.load_checkpoint):
        with pytest.raises((ValueError, RuntimeError), match="could run code"):
            load(address)
    with pytest.raises((ValueError, RuntimeError), match="could run code"):
        load_checkpoint(torch.nn.Linear(1, 1), address)
    assert not victim.exists()


@pytest.mark.parametrize("address", NAMES)
def test_published_names_are_found(monkeypatch, mirror, address):
    mirror.files["x.pth"] = saved(4.0)
    for name in ("get_torchvision_models", "get_external_models"):
        monkeypatch.setattr(reading, name, lambda: {"x": f"{mirror.url}/x.pth"})
    assert read_checkpoint(address)["w"] == 4
    with pytest.raises(ValueError, match="mmengine knows no weights"):
        read_checkpoint(f"{address}y")


def test_every_loader_of_mmengine_is_replaced_and_storages_are_refused():
    """A new one of mmengine's must be looked at before our tools read by it."""
    use_safe_loaders()
    loaders = CheckpointLoader._schemes.values()
    assert all(loader.__module__.startswith("mmvanilla.") for loader in loaders)
    for address in ("s3://b/x.pth", "c:petrel://b/x.pth", "pavi://x", "mmcls://x"):
        for load in (read_checkpoint, CheckpointLoader.load_checkpoint):
            with pytest.raises(ValueError, match="fetch the file by other means"):
                load(address)


def _load_as_rank(rank, rendezvous, out):
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    add_small_names()
    try:
        CheckpointLoader.load_checkpoint("vanillanet://tiny")
    except RuntimeError as error:
        Path(out, f"rank{rank}").write_text(str(error))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_there", [True, False])
def test_one_of_two_processes_fetches(mirror, cache, tmp_path, is_there):
    if not is_there:
        mirror.files.clear()
    mp.spawn(_load_as_rank, (tmp_path / "rendezvous", tmp_path), nprocs=2)
    said = [path.read_text() for path in tmp_path.glob("rank*")]
    assert len(said) == (0 if is_there else 2) and all("cannot fetch" in text for text in said)
    assert not is_there or mirror.requests == ["tiny5.official.pth"]
