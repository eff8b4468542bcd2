"""Safe reading of checkpoint files."""

import argparse
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmvanilla.checkpoints.reading import read_checkpoint
from tests.helpers import DATA


class _Attack:
    """Touches a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return (os.system, (f"touch {self.victim}",))


class _AttackByGetattr:
    def __reduce__(self):
        return (getattr, (argparse.Namespace, "__init__"))


def test_reads_the_authors_file():
    checkpoint = read_checkpoint(DATA / "tiny5.official.pth")
    assert checkpoint["epoch"] == 299
    assert checkpoint["args"] == argparse.Namespace(model="tiny5", act_num=3)
    expected = torch.load(DATA / "tiny5.official.pth", weights_only=False)
    assert list(checkpoint["model_ema"]) == list(expected["model_ema"])
    for key, tensor in expected["model_ema"].items():
        assert torch.equal(checkpoint["model_ema"][key], tensor)


def test_reads_what_a_training_run_saves(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    saved = dict(
        meta=dict(epoch=3, palette=np.arange(6.0).reshape(2, 3), ratio=np.float64(0.5)),
        message_hub=dict(log_scalars={"train/loss": history}),
        state_dict=dict(weight=torch.arange(3.0)),
    )
    torch.save(saved, tmp_path / "epoch_3.pth")
    read = read_checkpoint(tmp_path / "epoch_3.pth")
    assert torch.equal(read["state_dict"]["weight"], torch.arange(3.0))
    assert np.array_equal(read["meta"]["palette"], np.arange(6.0).reshape(2, 3))
    assert read["meta"]["ratio"] == 0.5
    history = read["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert [values.tolist() for values in history.data] == [[1.0, 2.0], [1, 1]]
    assert (history.mean(), history.current()) == (1.5, 2.0)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_file_is_refused_and_does_not_run(tmp_path, legacy):
    victim = tmp_path / "victim"
    path = tmp_path / "bad.pth"
    torch.save(
        dict(model=dict(w=torch.zeros(1)), args=_Attack(victim)),
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(ValueError, match=r"refused: it names '(posix|nt)\.system'"):
        read_checkpoint(path)
    assert not victim.exists()
    torch.load(path, weights_only=False)  # the attack does work on a reader that trusts
    assert victim.exists()


def test_getattr_reaches_nothing(tmp_path):
    torch.save(dict(init=_AttackByGetattr()), tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"refused: it names 'builtins\.getattr'"):
        read_checkpoint(tmp_path / "bad.pth")


def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pth"))
    with pytest.raises(ValueError, match=r"script\.pth"):
        read_checkpoint(tmp_path / "script.pth")


def test_damaged_and_foreign_files(tmp_path):
    whole = (DATA / "tiny5.official.pth").read_bytes()
    contents = dict(
        truncated=whole[: len(whole) // 2],
        empty=b"",
        text=b"<html>404</html>",
        pickle=pickle.dumps(print),
    )
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} (is|cannot be)") as caught:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)
    torch.save([torch.zeros(1)], tmp_path / "list")
    with pytest.raises(ValueError, match="holds a list; expected a dict"):
        read_checkpoint(tmp_path / "list")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_checkpoint(tmp_path / "missing")
