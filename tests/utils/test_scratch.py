"""Folders for unfinished work, and what killed processes leave of them."""

import os
import subprocess
import sys
import time

import pytest

from mmvanilla.utils.scratch import abandoned, scratch_folder


def killed_process():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_it_is_gone_afterwards(tmp_path):
    with scratch_folder(tmp_path / "new", "making") as folder:
        assert folder.parent == tmp_path / "new"
        (folder / "half").write_text("half")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(RuntimeError), scratch_folder(tmp_path, "making") as folder:
        raise RuntimeError
    assert not folder.exists()


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    with scratch_folder(tmp_path, "making") as living:
        owner = living.name.split("-")[1]
        dead = killed_process()
        gone = tmp_path / f".making-{owner}-{dead}-abcdefgh"
        kept = [
            tmp_path / f".exporting-{owner}-{dead}-abcdefgh",  # of another kind
            tmp_path / f".making-{'0' * 8}-{dead}-abcdefgh",  # of another machine
            tmp_path / f".making-{owner}-{os.getppid()}-abcdefgh",  # of a living process
            tmp_path / ".making-mine",  # of somebody who likes such names
        ]
        for folder in [gone, *kept]:
            folder.mkdir()
            (folder / "half").write_text("half")
        assert abandoned(tmp_path, "making") == [gone]
        with scratch_folder(tmp_path, "making"):
            assert not gone.exists()
        assert all(folder.exists() for folder in [living, *kept])


def test_what_an_old_version_left_is_removed_a_day_later(tmp_path):
    old, young = tmp_path / ".exporting-a1b2_c3d", tmp_path / ".exporting-e4f5g6h7"
    for folder in (old, young):
        folder.mkdir()
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    with scratch_folder(tmp_path, "exporting"):
        assert not old.exists() and young.exists()


def test_a_kind_is_one_word(tmp_path):
    with pytest.raises(ValueError, match="one word"), scratch_folder(tmp_path, "not/one"):
        pass
