"""Files are written whole or not at all, alone and together, whoever else writes or kills."""

import multiprocessing
import os
import pickle
import random
import resource
import signal
import threading
import time
from contextlib import nullcontext

import pytest
import torch

from mmvanilla.checkpoints import writing
from mmvanilla.checkpoints.reading import read_checkpoint
from mmvanilla.checkpoints.writing import (
    UNFINISHED,
    appearing_together,
    check_writable,
    write_checkpoint,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def together(folder, overwrite=False):
    return appearing_together([folder / "out.py", folder / "out.pth"], overwrite)


def write_pair(folder, text, overwrite=False):
    """Write a config, then a checkpoint, as fusing does."""
    with together(folder, overwrite) as (config, weights):
        config.write_text(text)
        torch.save(dict(meta=dict(cfg=text)), weights)


def read_pair(folder):
    config = (folder / "out.py").read_text()
    return config, read_checkpoint(folder / "out.pth")["meta"]["cfg"]


class TestOneFile:
    def test_it_is_whole_and_has_the_mode_of_any_new_file(self, tmp_path):
        path = tmp_path / "new" / "folder" / "out.pth"
        checkpoint = dict(state_dict=dict(w=torch.rand(2, 3)))
        write_checkpoint(checkpoint, path)
        read = torch.load(path, weights_only=True)
        assert torch.equal(read["state_dict"]["w"], checkpoint["state_dict"]["w"])
        assert names(path.parent) == ["out.pth"]
        (tmp_path / "usual").write_text("")
        assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode

    def test_what_is_there_is_kept(self, tmp_path):
        path = tmp_path / "out.pth"
        path.write_text("mine")
        with pytest.raises(FileExistsError, match="--overwrite"):
            write_checkpoint(dict(a=1), path)
        assert path.read_text() == "mine"
        write_checkpoint(dict(a=1), path, overwrite=True)
        with pytest.raises((AttributeError, pickle.PicklingError)):
            write_checkpoint(dict(a=lambda: 1), path, overwrite=True)
        assert read_checkpoint(path) == dict(a=1)
        with pytest.raises(IsADirectoryError, match="is a folder"):
            write_checkpoint(dict(a=1), tmp_path, overwrite=True)
        assert names(tmp_path) == ["out.pth"]

    def test_a_full_disk_leaves_nothing(self, tmp_path):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                write_checkpoint(dict(w=torch.zeros(10000)), tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert names(tmp_path) == []

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_link_in_its_place_leads_nowhere(self, tmp_path, overwrite):
        (tmp_path / "private").write_text("secret")
        for target in ("private", "nothing"):
            link = tmp_path / f"link to {target}"
            link.symlink_to(tmp_path / target)
            with nullcontext() if overwrite else pytest.raises(FileExistsError):
                write_text("new", link, overwrite)
            assert link.is_symlink() is not overwrite
        assert (tmp_path / "private").read_text() == "secret"
        assert not (tmp_path / "nothing").exists()


class TestSeveralFiles:
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_none_appears_when_a_check_fails_or_ctrl_c_comes(self, tmp_path, error):
        write_pair(tmp_path, "old")
        with pytest.raises(error, match="differ"), together(tmp_path, True) as aside:
            for path in aside:
                path.write_text("new")
            (aside[0].parent / "__pycache__").mkdir()
            raise error("they differ")
        with (
            pytest.raises(RuntimeError, match=r"out\.pth was not written"),
            together(tmp_path, True) as aside,
        ):
            aside[0].write_text("new")
        assert names(tmp_path) == ["out.pth", "out.py"]
        assert read_pair(tmp_path) == ("old", "old")

    def test_a_file_that_appears_meanwhile_is_kept_and_nothing_stands_beside_it(self, tmp_path):
        with (
            pytest.raises(FileExistsError, match=r"out\.pth exists already"),
            together(tmp_path) as aside,
        ):
            for path in aside:
                path.write_text("ours")
            (tmp_path / "out.pth").write_text("theirs")
        assert names(tmp_path) == ["out.pth"]
        assert (tmp_path / "out.pth").read_text() == "theirs"


class TestBeforeTheWork:
    def test_an_output_that_is_an_input_is_refused(self, tmp_path):
        config = tmp_path / "model.py"
        config.write_text("model = None")
        (tmp_path / "link.py").symlink_to(config)
        os.link(config, tmp_path / "hard.py")
        for name in ("model.py", "./model.py", "link.py", "hard.py"):
            with pytest.raises(ValueError, match="also an input"):
                check_writable([tmp_path / name], overwrite=True, inputs=[config, "vanillanet://5"])
        with pytest.raises(ValueError, match="named twice"):
            check_writable([tmp_path / "a.pth", tmp_path / "." / "a.pth"])
        assert config.read_text() == "model = None"

    def test_unwritable_places_are_found_and_nothing_is_made(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        with pytest.raises(PermissionError, match="file is not a folder in which you may"):
            check_writable([tmp_path / "file" / "out.pth"])
        check_writable([tmp_path / "new" / "out.pth"])
        monkeypatch.setattr(writing.os, "access", lambda path, mode: False)  # as root may anything
        with pytest.raises(PermissionError, match=r"out\.pth cannot be written: "):
            check_writable([tmp_path / "new" / "out.pth"])
        assert names(tmp_path) == ["file"]


def _write_in_turn(root, number, overwrite, start, results):
    for folder in sorted(root.iterdir()):
        start.wait()
        try:
            write_pair(folder, f"of process {number}", overwrite)
            results.put((folder.name, number))
        except FileExistsError:
            pass


@pytest.mark.parametrize("overwrite", [False, True])
def test_processes_that_write_at_once(tmp_path, overwrite):
    """In 40 rounds: never a pair of two, and without ``overwrite`` exactly one succeeds."""
    for round_ in range(40):
        (tmp_path / f"{round_:02}").mkdir()
        if overwrite:
            write_pair(tmp_path / f"{round_:02}", "old")
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.SimpleQueue()
    writers = [
        context.Process(target=_write_in_turn, args=(tmp_path, number, overwrite, start, results))
        for number in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
        assert writer.exitcode == 0
    succeeded = {}
    while not results.empty():
        folder, number = results.get()
        succeeded.setdefault(folder, []).append(f"of process {number}")
    for folder in tmp_path.iterdir():
        config, checkpoint = read_pair(folder)
        assert config == checkpoint and config in succeeded[folder.name]
        assert len(succeeded[folder.name]) == (3 if overwrite else 1)
        assert names(folder) == ["out.pth", "out.py"]


def test_ctrl_c_while_files_appear_leaves_the_new_pair(tmp_path, monkeypatch):
    """Wherever the main thread is in this moment: it may still be starting the other one."""

    def handle(number, frame):
        arrived.set()
        raise KeyboardInterrupt

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGINT)
        arrived.wait(0.1)  # at most: the main thread may be asleep
        put_in_place(*args)

    arrived, put_in_place = threading.Event(), writing._put_in_place
    write_pair(tmp_path, "0")
    monkeypatch.setattr(writing, "_put_in_place", interrupted)
    before = signal.signal(signal.SIGINT, handle)
    try:
        for number in range(1, 50):
            arrived.clear()
            with pytest.raises(KeyboardInterrupt):
                write_pair(tmp_path, str(number), overwrite=True)
            assert read_pair(tmp_path) == (str(number), str(number))
            assert names(tmp_path) == ["out.pth", "out.py"]
    finally:
        signal.signal(signal.SIGINT, before)


def test_killed_at_any_moment_each_file_is_whole(tmp_path):
    """The config may be of the next run; nothing but a folder with a telling name is left."""
    rng = random.Random(0)
    write_pair(tmp_path, "0")
    for _ in range(40):
        begin = int(read_pair(tmp_path)[1])
        written, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            for generation in range(begin + 1, begin + 10**6):
                write_pair(tmp_path, str(generation), overwrite=True)
                os.write(told, b".")
        os.read(written, 1)  # it is writing the second pair now
        time.sleep(rng.uniform(0, 0.01))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(written)
        os.close(told)
        config, checkpoint = map(int, read_pair(tmp_path))
        assert config - checkpoint in (0, 1) and checkpoint > begin
        left = set(names(tmp_path)) - {"out.py", "out.pth"}
        assert all(name.startswith(UNFINISHED) for name in left)
    write_pair(tmp_path, "later", overwrite=True)
    assert read_pair(tmp_path) == ("later", "later")
