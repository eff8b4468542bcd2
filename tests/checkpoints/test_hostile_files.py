"""Files that were made to harm: refused, in one line, and nothing of them runs."""

import contextlib
import io
import os
import pickle
import random
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer

from mmvanilla.checkpoints import reading
from mmvanilla.checkpoints.plain_values import BUILDERS
from mmvanilla.checkpoints.reading import read_checkpoint
from tests.checkpoints.hostile import (
    DANGEROUS,
    WAYS,
    attack,
    call_by_reduce,
    checkpoint_with,
)


def refuse(path):
    """Read it, and return the one line that says no."""
    with pytest.raises(ValueError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", DANGEROUS)
def test_no_callable_is_called_by_any_way(tmp_path, name, way):
    for legacy in (False, True):
        victim = tmp_path / "victim"
        path = checkpoint_with(attack(name, victim, way), tmp_path / "bad.pth", legacy)
        message = refuse(path)
        assert "refused: it names" in message or "never writes" in message
        assert not victim.exists()


def test_such_a_file_does_run_in_a_reader_that_trusts(tmp_path):
    """Or the sweep above would prove nothing."""
    victim = tmp_path / "victim"
    path = checkpoint_with(attack("os.system", victim, call_by_reduce), tmp_path / "bad.pth")
    torch.load(path, weights_only=False)
    assert victim.exists()


class _Forged:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def _scalar_of_object_type():
    scalar = np.float64(1).__reduce__()[0]
    forged = _Forged(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
    return _Forged(scalar, (forged, b"A" * 8))


def _reconstruct():
    return np.zeros(1).__reduce__()[0]


FORGED_NUMPY = {
    "an object scalar": _scalar_of_object_type,
    "an object array": lambda: np.array([object], dtype=object),
    "an object type": lambda: np.dtype("O"),
    "forged flags of a plain type": lambda: _Forged(
        np.dtype, ("f8", False, True), (3, "<", None, None, None, 8, 8, 63)
    ),
    "fields in a plain type": lambda: _Forged(
        np.dtype, ("f8", False, True), (3, "<", None, ("a",), {"a": 1}, -1, -1, 0)
    ),
    "a record type": lambda: np.zeros(2, dtype=[("a", "O"), ("b", "f4")]),
    "a subarray type": lambda: _Forged(np.dtype, ("(2,)O", False, True)),
    "a void type": lambda: np.zeros(2, dtype="V8"),
    "too few bytes": lambda: _Forged(
        _reconstruct(), (np.ndarray, (0,), b"b"), (1, (9,), np.dtype("f8"), False, b"short")
    ),
    "a huge shape": lambda: _Forged(
        _reconstruct(), (np.ndarray, (0,), b"b"), (1, (2**62, 4), np.dtype("f8"), False, b"")
    ),
    "a negative shape": lambda: _Forged(
        _reconstruct(), (np.ndarray, (0,), b"b"), (1, (-1,), np.dtype("f8"), False, b"A" * 8)
    ),
    "a list as content": lambda: _Forged(
        _reconstruct(), (np.ndarray, (0,), b"b"), (1, (1,), np.dtype("O"), False, ["x"])
    ),
    "a subclass": lambda: _Forged(_reconstruct(), (np.memmap, (0,), b"b")),
    "a masked array": lambda: np.ma.masked_array([1.0, 2.0], [0, 1]),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", FORGED_NUMPY)
def test_no_array_of_objects_and_no_forged_type(tmp_path, name, legacy):
    """In a process of its own, since the first of these killed the reader that we had."""
    path = tmp_path / "bad.pth"
    saved = dict(evil=FORGED_NUMPY[name]())
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    pid = os.fork() if hasattr(os, "fork") else 0
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        return
    code = 1
    try:
        refuse(path)
        code = 0
    finally:
        if hasattr(os, "fork"):
            os._exit(code)


def _rewritten(source, target, change):
    """Copy an archive; ``change`` gets each part's name and content, and gives its content."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
    return target


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x04t", b"J\x00\x00\x00\x10t"),  # elements of the storage
        (b"K\x04\x85", b"J\x00\x00\x00\x10\x85"),  # size of the tensor
        (b"QK\x00K\x04", b"QK\x09K\x04"),  # its offset
        (b"K\x01\x85", b"K\x63\x85"),  # its stride
        (b"QK\x00K\x04", b"QJ\xff\xff\xff\xffK\x04"),
        (b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x007"),  # the key of its storage
        (b"FloatStorage", b"LongStorage"),
        (b"FloatStorage", b"EvilStorage"),
    ],
)
def test_a_tensor_never_reaches_beyond_its_storage(tmp_path, old, new):
    torch.save(dict(w=torch.zeros(4)), tmp_path / "good.pth")
    changed = []

    def change(name, content):
        if name.endswith("/data.pkl"):
            changed.append(old in content)
            return content.replace(old, new)
        return content

    path = _rewritten(tmp_path / "good.pth", tmp_path / "bad.pth", change)
    assert changed == [True]
    refuse(path)


def test_archives_that_ask_for_memory_or_have_two_faces(tmp_path):
    torch.save(dict(w=torch.zeros(4)), tmp_path / "good.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as old:
        parts = {info.filename: old.read(info) for info in old.infolist()}
    bomb, twins = tmp_path / "bomb.pth", tmp_path / "twins.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content + b"\0" * 10**7 * name.endswith("/data/0"))
    with zipfile.ZipFile(twins, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for name, content in [*parts.items(), *parts.items()]:
            archive.writestr(name, content)
    assert "compressed" in refuse(bomb)
    assert "two parts of one name" in refuse(twins)
    other = "little" if sys.byteorder == "big" else "big"
    order = _rewritten(
        tmp_path / "good.pth",
        tmp_path / "order.pth",
        lambda name, content: other.encode() if name.endswith("byteorder") else content,
    )
    if any(name.endswith("byteorder") for name in parts):
        assert "endian" in refuse(order)


CONTENT = dict(
    meta=dict(epoch=3, palette=np.arange(6.0).reshape(2, 3), classes=("a", "b"), seed=np.int64(7)),
    message_hub=dict(log_scalars={"loss": HistoryBuffer([1.0, 2.0], [1, 1])}),
    state_dict={"a": torch.arange(64.0).reshape(8, 8), "b": torch.ones(5, dtype=torch.float64)},
)


def _saved(legacy):
    file = io.BytesIO()
    torch.save(CONTENT, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


WHOLE = _saved(legacy=False)
LEGACY = _saved(legacy=True)


def _plain(value):
    """What was read, for a comparison by ``==``."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor | np.ndarray):
        return (str(value.dtype), value.tolist())
    if isinstance(value, HistoryBuffer):
        return [array.tolist() for array in value.data]
    return value


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)), min_size=1, max_size=40
    )
)
def test_flipped_bytes_are_found_or_change_nothing(tmp_path_factory, flips):
    content = bytearray(WHOLE)
    for position, mask in flips:
        content[position] ^= mask
    path = tmp_path_factory.getbasetemp() / "flipped.pth"
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        assert _plain(read_checkpoint(path)) == _plain(CONTENT)


def test_any_one_flipped_byte_in_the_weights_is_found(tmp_path):
    start = WHOLE.index(torch.arange(64.0).numpy().tobytes())
    for position in range(start, start + 256, 5):
        content = bytearray(WHOLE)
        content[position] ^= 1
        (tmp_path / "flipped.pth").write_bytes(content)
        assert "CRC" in refuse(tmp_path / "flipped.pth")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(LEGACY) - 1), st.integers(1, 255)), min_size=1, max_size=10
    )
)
def test_flipped_bytes_of_the_legacy_format_end_in_a_refusal_or_in_values(tmp_path_factory, flips):
    """It has no check sums; but nothing worse than other values comes of it."""
    content = bytearray(LEGACY)
    for position, mask in flips:
        content[position] ^= mask
    path = tmp_path_factory.getbasetemp() / "flipped_legacy.pth"
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        assert isinstance(read_checkpoint(path), dict)


@pytest.mark.parametrize("content", [WHOLE, LEGACY], ids=["zip", "legacy"])
def test_truncated_anywhere(tmp_path, content):
    path = tmp_path / "short.pth"
    for length in [0, 1, 2, 3, 4, 5, 20, *range(50, len(content) - 1, 97), len(content) - 1]:
        path.write_bytes(content[:length])
        refuse(path)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(sorted(set(range(33, 127)) | set(range(0x80, 0x98)))), max_size=30))
def test_random_pickles_end_in_a_refusal_or_in_plain_values(tmp_path_factory, codes):
    path = tmp_path_factory.getbasetemp() / "random.pth"
    checkpoint_with(b"(N" + bytes(codes) + b"N", path)
    with contextlib.suppress(ValueError):
        read_checkpoint(path)


def test_wrong_arguments_for_every_name_that_may_be_called(tmp_path):
    generator = random.Random(0)
    values = ["x", 2**40, -1, ["a"], [1, 2], [[]]]
    for name in BUILDERS:
        module, _, attribute = name.rpartition(".")
        for _ in range(12):
            arguments = generator.choices(values, k=generator.randrange(0, 8))
            path = checkpoint_with(
                call_by_reduce(module, attribute, arguments), tmp_path / "bad.pth"
            )
            with contextlib.suppress(ValueError):
                read_checkpoint(path)


@pytest.mark.parametrize("step", ["BINBYTES8", "BINUNICODE8", "BYTEARRAY8", "FRAME", "BINBYTES"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_forged_length_allocates_nothing(tmp_path, step, legacy):
    length = (2**32 - 1).to_bytes(4 if step == "BINBYTES" else 8, "little")
    path = checkpoint_with(getattr(pickle, step) + length + b"N", tmp_path / "bad.pth", legacy)
    tracemalloc.start()
    try:
        assert "it ends in the middle of a value" in refuse(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_long_texts_and_bytes_are_read_whole(tmp_path):
    saved = dict(text="x" * 3_000_000, bytes=b"y" * 2_000_001, array=bytearray(b"z" * 70_000))
    torch.save(saved, tmp_path / "long.pth", pickle_protocol=5)
    assert read_checkpoint(tmp_path / "long.pth") == saved


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_torch_saves_is_read_as_torch_reads_it(tmp_path, legacy, protocol):
    base = torch.arange(24.0).reshape(4, 6)
    saved = dict(
        CONTENT,
        shared=[base, base[1:, ::2], base.T],
        empty=torch.zeros(0, 3),
        number=torch.tensor(3),
        kinds={str(t): torch.ones(3).to(t) for t in (torch.half, torch.bfloat16, torch.bool)},
        parameter=torch.nn.Parameter(torch.ones(2)),
        size=torch.Size([1, 2]),
        dtype=torch.float16,
        device=torch.device("cpu"),
        bytes=(b"", b"abc\xff", bytearray(b"x")),
        sets={1, 2},
        scalar=np.float32(1.5),
        text=np.array(["a", "bcd"]),
        big=np.arange(3, dtype=">i4"),
        order=np.asfortranarray(np.arange(6).reshape(2, 3)),
    )
    path = tmp_path / "good.pth"
    torch.save(saved, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    read = read_checkpoint(path)
    expected = torch.load(path, weights_only=False)
    for key in ("meta", "state_dict", "kinds", "message_hub"):
        assert _plain(read[key]) == _plain(expected[key])
    for key in ("shared", "empty", "number", "parameter"):
        both = [
            [tensors] if torch.is_tensor(tensors) else tensors
            for tensors in (read[key], expected[key])
        ]
        for ours, theirs in zip(*both, strict=True):
            assert torch.equal(ours, theirs)
            assert (ours.stride(), ours.dtype) == (theirs.stride(), theirs.dtype)
    assert len({tensor.untyped_storage().data_ptr() for tensor in read["shared"]}) == 1
    assert isinstance(read["parameter"], torch.nn.Parameter)
    for key in ("size", "dtype", "device", "bytes", "sets", "scalar"):
        assert read[key] == expected[key]
        assert type(read[key]) is type(expected[key])
    for key in ("text", "big", "order"):
        assert np.array_equal(read[key], expected[key])
        assert read[key].dtype == expected[key].dtype
    assert pickle.dumps(read["meta"]) == pickle.dumps(expected["meta"])


def test_reading_imports_nothing_that_the_file_names(tmp_path):
    path = checkpoint_with(call_by_reduce("antigravity", "fly", []), tmp_path / "bad.pth")
    script = (
        "import sys\nfrom mmvanilla.checkpoints.reading import read_checkpoint\n"
        f"try: read_checkpoint({str(path)!r})\nexcept ValueError: pass\n"
        "sys.exit('antigravity' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_a_small_file_that_asks_for_much_memory_was_changed(tmp_path, monkeypatch):
    path = tmp_path / "small.pth"
    torch.save({"state_dict": {}}, path)

    def exhausted(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(reading, "read_container", exhausted)
    assert "asks for more memory than a file of its size needs" in refuse(path)
