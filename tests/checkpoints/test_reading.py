"""Reading a checkpoint gives what was saved, refuses the rest in one line, and changes nothing."""

import argparse
import contextlib
import io
import pickle
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from mmvanilla.checkpoints.plain_pickle import ALLOWED
from mmvanilla.checkpoints.reading import read_checkpoint
from tests.checkpoints.hostile import (
    DANGEROUS,
    WAYS,
    argument,
    attack,
    call_by_reduce,
    checkpoint_with,
    named,
)
from tests.helpers import DATA


def refuse(path):
    """Read it, and return the one line that says no."""
    with pytest.raises(ValueError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and "\033" not in message
    return message


class TestWhatIsRead:
    def test_the_authors_file(self):
        checkpoint = read_checkpoint(DATA / "tiny5.official.pth")
        assert checkpoint["epoch"] == 299
        assert vars(checkpoint["args"]) == dict(model="tiny5", act_num=3)
        expected = torch.load(DATA / "tiny5.official.pth", weights_only=False)
        assert list(checkpoint["model_ema"]) == list(expected["model_ema"])
        for key, tensor in expected["model_ema"].items():
            assert torch.equal(checkpoint["model_ema"][key], tensor)

    def test_what_a_training_of_mmengine_saves(self, tmp_path):
        plain = dict(
            numbers=[3, np.float64(0.5), np.int64(7), np.bool_(True), np.str_("best")],
            classes=("a", "b"),
            milestones=Counter([1, 1, 2]),
            sets=[{1, 2}, frozenset([3])],
            bytes=[b"", b"abc\xff", bytearray(b"x")],
            cfg=ConfigDict(a=dict(b=1)),
            torch=[torch.float16, torch.device("cpu"), torch.Size([1, 2])],
            anneal_func=OneCycleParamScheduler._annealing_cos,
        )
        grid = np.arange(6).reshape(2, 3)
        arrays = [grid, np.array(["a", "bcd"]), grid.astype(">i4"), np.asfortranarray(grid)]
        base = torch.arange(24.0).reshape(4, 6)
        tensors = [base, base[1:, ::2], base.T, torch.zeros(0, 3), base.bfloat16()]
        tensors += [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))]
        tensors[-1].about = "x"
        history = HistoryBuffer([1.0, 2.0], [1, 1])
        saved = dict(plain=plain, arrays=arrays, tensors=tensors, history=history)
        torch.save(saved, tmp_path / "epoch_3.pth")
        for _ in range(2):  # what was read can be saved again
            read = read_checkpoint(tmp_path / "epoch_3.pth")
            assert read["plain"] == plain
            for found, array in zip(read["arrays"], arrays, strict=True):
                assert np.array_equal(found, array) and found.dtype.kind == array.dtype.kind
            for found, tensor in zip(read["tensors"], tensors, strict=True):
                assert torch.equal(found, tensor) and found.stride() == tensor.stride()
            # Views still share their memory.
            assert len({tensor.untyped_storage().data_ptr() for tensor in read["tensors"]}) == 5
            assert (read["history"].mean(), read["history"].current()) == (1.5, 2.0)
            torch.save(read, tmp_path / "epoch_3.pth")

    def test_the_old_format(self, tmp_path):
        content = dict(w=torch.ones(2), n=[1, "a"], args=argparse.Namespace(decay_epochs=100))
        torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=False)
        read = read_checkpoint(tmp_path / "file.pth")
        assert torch.equal(read["w"], content["w"]) and read["n"] == content["n"]
        assert read["args"].decay_epochs == 100


@pytest.mark.parametrize("saved_on", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def test_where_the_tensors_go(tmp_path, saved_on):
    weights = dict(a=torch.rand(3, device=saved_on))
    path = tmp_path / "net.pth"
    torch.save(dict(state_dict=weights), path)
    for target, device in [
        ("cpu", "cpu"),
        (None, "cpu"),
        (torch.device("meta"), "meta"),
        (saved_on, saved_on.partition(":")[0]),
        (lambda storage, place: storage, "cpu"),
        ({saved_on: "meta"}, "meta"),
    ]:
        read = read_checkpoint(path, target)["state_dict"]
        assert {tensor.device.type for tensor in read.values()} == {device}
        assert device == "meta" or torch.equal(read["a"].cpu(), weights["a"].cpu())
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"net\.pth .*CUDA"):
            read_checkpoint(path, "cuda")


class TestNoCodeRuns:
    @pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
    def test_no_callable_is_called(self, tmp_path, way, legacy):
        victim = tmp_path / "victim"
        for name in DANGEROUS:
            path = checkpoint_with(attack(name, victim, way), tmp_path / "bad.pth", legacy)
            message = refuse(path)
            known = name in ALLOWED  # then it is another call than the usual one
            assert known or "could run code" in message, name
            assert not victim.exists(), name
        # Such a file does run in a reader that trusts.
        path = checkpoint_with(attack("os.system", victim, call_by_reduce), path, legacy)
        torch.load(path, weights_only=False)
        assert victim.exists()

    def test_getattr_reaches_nothing_but_what_schedulers_need(self, tmp_path):
        for module, _, name in (name.rpartition(".") for name in ALLOWED):
            value = named("builtins", "getattr") + b"(" + named(module, name)
            value += argument("__init__") + b"tR"
            path = checkpoint_with(value, tmp_path / "bad.pth")
            with contextlib.suppress(ValueError):
                assert read_checkpoint(path)["evil"] is None, name

    def test_a_file_changes_nothing_of_the_process(self, tmp_path):
        """BUILD sets attributes of whatever a file names."""
        state = b"(N}" + argument("dump_patches") + argument("x") + b"st"
        for module, _, name in (name.rpartition(".") for name in ALLOWED):
            value = named(module, name) + state + b"b"
            with contextlib.suppress(ValueError):
                read_checkpoint(checkpoint_with(value, tmp_path / "bad.pth"))
        for kept in [torch._utils, HistoryBuffer, OneCycleParamScheduler, *ALLOWED.values()]:
            assert not hasattr(kept, "dump_patches"), kept
        assert not hasattr(torch._utils._rebuild_tensor_v2, "dump_patches")

    def test_a_history_brings_no_methods(self, tmp_path):
        path = tmp_path / "bad.pth"
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(HistoryBuffer._statistics_methods, "x", 1)
            torch.save(dict(h=HistoryBuffer([1.0], [1])), path)
        assert read_checkpoint(path)["h"].data[0].tolist() == [1.0]
        assert "x" not in HistoryBuffer._statistics_methods


class _Forged:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


_SCALAR, _RECONSTRUCT = np.float64(1).__reduce__()[0], np.zeros(1).__reduce__()[0]
FORGED_NUMPY = {
    "an object scalar": _Forged(
        _SCALAR,
        (_Forged(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)), b"A" * 8),
    ),
    "an object array": np.array([object], dtype=object),
    "an object type": np.dtype("O"),
    "a record type": np.zeros(2, dtype=[("a", "O"), ("b", "f4")]),
    "a void type": np.zeros(2, dtype="V8"),
    "a negative shape": _Forged(
        _RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (-1,), np.dtype("f8"), False, b"A" * 8)
    ),
    "a subclass": _Forged(_RECONSTRUCT, (np.memmap, (0,), b"b")),
}


def test_no_array_of_objects_and_no_forged_type(tmp_path):
    for value in FORGED_NUMPY.values():
        torch.save(dict(evil=value), tmp_path / "bad.pth")
        refuse(tmp_path / "bad.pth")
    # Flags and fields of a forged type are not taken.
    forged = _Forged(np.dtype, ("f8", False, True), (3, "<", None, ("a",), {"a": 1}, 8, 8, 63))
    array = _Forged(_RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), forged, False, b"A" * 8))
    torch.save(dict(evil=array), tmp_path / "bad.pth")
    read = read_checkpoint(tmp_path / "bad.pth")["evil"]
    assert read.dtype == np.dtype("<f8") and not read.dtype.hasobject


def _saved(legacy):
    file = io.BytesIO()
    content = dict(a=torch.arange(64.0).reshape(8, 8), b=torch.ones(5, dtype=torch.float64))
    torch.save(dict(state_dict=content), file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


class TestDamagedAndOtherFiles:
    def test_a_changed_byte_is_found_or_changes_nothing(self, tmp_path):
        whole = _saved(legacy=False)
        start = whole.index(torch.arange(64.0).numpy().tobytes())
        path = tmp_path / "changed.pth"
        for position in range(0, len(whole), 7):
            content = bytearray(whole)
            content[position] ^= 0x55
            path.write_bytes(content)
            if start <= position < start + 256:
                assert "check sum" in refuse(path)
            with contextlib.suppress(ValueError):
                weights = read_checkpoint(path)["state_dict"]
                assert torch.equal(weights["a"], torch.arange(64.0).reshape(8, 8))

    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
    def test_cut_anywhere(self, tmp_path, legacy):
        whole = _saved(legacy)
        path = tmp_path / "short.pth"
        for length in [0, 1, 3, 4, 5, 20, *range(50, len(whole) - 1, 97), len(whole) - 1]:
            path.write_bytes(whole[:length])
            assert "short.pth" in refuse(path)

    def test_what_is_no_checkpoint(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
            archive.writestr("readme.txt", "no weights")
        (tmp_path / "page").write_bytes(b"<html>please log in</html>")
        (tmp_path / "pickle").write_bytes(pickle.dumps(dict(a=1)))
        torch.save([torch.zeros(1)], tmp_path / "list")
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script"))
        said = {path.name: refuse(path) for path in tmp_path.iterdir()}
        assert "holds a list; expected a dict" in said["list"] and "TorchScript" in said["script"]
        with pytest.raises(FileNotFoundError, match="No such file.*missing"):
            read_checkpoint(tmp_path / "missing")
        with pytest.raises(IsADirectoryError, match="Is a directory"):
            read_checkpoint(tmp_path)


def test_reading_changes_nothing_whatever_lies_beside(tmp_path):
    """Many readers at once, beside what earlier versions left when they were killed."""
    private, shared = tmp_path / "private", tmp_path / "shared"
    left = shared / ".complete-0123abcd-1-left"
    private.mkdir()
    left.mkdir(parents=True)
    (private / "key").write_text("secret")
    (left / "out.pth").write_bytes(b"an older one")
    (shared / ".complete-0123abcd-2-link").symlink_to(private)
    for name in ("out.pth", "other.pth"):
        (shared / name).write_bytes(_saved(legacy=False))
    before = {path: path.lstat() for path in [tmp_path, *tmp_path.rglob("*")]}
    with ThreadPoolExecutor(4) as pool:
        read = pool.map(read_checkpoint, [shared / "out.pth", shared / "other.pth"] * 20)
        assert all("state_dict" in checkpoint for checkpoint in read)
    after = {path: path.lstat() for path in [tmp_path, *tmp_path.rglob("*")]}
    assert after.keys() == before.keys()
    assert all(after[path].st_mtime_ns == was.st_mtime_ns for path, was in before.items())
