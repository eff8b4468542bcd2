"""Files are written whole or not at all, alone and together."""

import os
import pickle
import sys
import textwrap

import pytest
import torch

from mmvanilla.checkpoints.reading import read_checkpoint
from mmvanilla.checkpoints.writing import (
    appearing_together,
    check_writable,
    finish_interrupted,
    write_checkpoint,
)
from mmvanilla.utils import scratch


def test_write_round_trip_without_any_class(tmp_path):
    path = tmp_path / "new" / "folder" / "out.pth"
    checkpoint = dict(meta=dict(a=1), state_dict=dict(w=torch.rand(2, 3)))
    write_checkpoint(checkpoint, path)
    read = torch.load(path, weights_only=True)
    assert read["meta"] == dict(a=1)
    assert torch.equal(read["state_dict"]["w"], checkpoint["state_dict"]["w"])
    assert [file.name for file in path.parent.iterdir()] == ["out.pth"]


def test_write_refuses_what_is_there(tmp_path):
    path = tmp_path / "out.pth"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_checkpoint(dict(a=1), path)
    assert path.read_text() == "mine"
    write_checkpoint(dict(a=1), path, overwrite=True)
    assert read_checkpoint(path) == dict(a=1)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_checkpoint(dict(a=1), tmp_path, overwrite=True)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.pth"
    write_checkpoint(dict(a=1), path)
    with pytest.raises((AttributeError, pickle.PicklingError), match="pickle|local object"):
        write_checkpoint(dict(a=lambda: 1), path, overwrite=True)
    assert read_checkpoint(path) == dict(a=1)
    assert [file.name for file in tmp_path.iterdir()] == ["out.pth"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_pair(folder, text, **options):
    with appearing_together([folder / "out.pth", folder / "out.py"], **options) as aside:
        for path in aside:
            path.write_text(f"{text} {path.name}")


def test_two_files_appear_together(tmp_path):
    write_pair(tmp_path / "new", "first")
    write_pair(tmp_path / "new", "second", overwrite=True)
    assert names(tmp_path / "new") == ["out.pth", "out.py"]
    assert (tmp_path / "new" / "out.py").read_text() == "second out.py"
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_pair(tmp_path / "new", "third")


def test_none_appears_when_a_check_fails(tmp_path):
    write_pair(tmp_path, "old")
    with (
        pytest.raises(RuntimeError, match="differ"),
        appearing_together([tmp_path / "out.pth", tmp_path / "out.py"], overwrite=True) as aside,
    ):
        for path in aside:
            path.write_text("new")
        raise RuntimeError("they differ")
    with (
        pytest.raises(RuntimeError, match="out.py was not written"),
        appearing_together([tmp_path / "out.pth", tmp_path / "out.py"], overwrite=True) as aside,
    ):
        aside[0].write_text("new")
    assert names(tmp_path) == ["out.pth", "out.py"]
    assert (tmp_path / "out.pth").read_text() == "old out.pth"


def test_what_a_check_leaves_aside_does_not_appear(tmp_path):
    with appearing_together([tmp_path / "out.py"]) as (aside,):
        aside.write_text("x = 1")
        cache = aside.parent / "__pycache__"
        cache.mkdir()
        (cache / "out.pyc").write_text("")
    assert names(tmp_path) == ["out.py"]


# Every step that changes the disk, counted; the process kills itself before step number N.
KILLED_AT = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    from mmvanilla.checkpoints import writing

    steps = int(sys.argv[2])

    def before(owner, name):
        original = getattr(owner, name)

        def step(*args, **kwargs):
            global steps
            if steps == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            steps -= 1
            return original(*args, **kwargs)

        setattr(owner, name, step)

    for name in ("write_text", "replace", "rename", "unlink", "rmdir"):
        before(Path, name)
    before(os, "fsync")
    folder = Path(sys.argv[1])
    with writing.appearing_together([folder / "out.pth", folder / "out.py"], True) as aside:
        for path in aside:
            path.write_text("new " + path.name)
    """)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a killed process is only known on POSIX")
def test_killed_before_any_step_the_pair_is_never_mixed(tmp_path):
    """Forked, since importing torch once a step would take a minute."""
    whole_runs, outcomes = 0, set()
    for step in range(40):
        folder = tmp_path / str(step)
        folder.mkdir()
        write_pair(folder, "old")
        pid = os.fork()
        if pid == 0:
            sys.argv = ["killed", str(folder), str(step)]
            code = 1
            try:
                exec(compile(KILLED_AT, "killed", "exec"), {})
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(pid, 0)[1]
        texts = {path.read_text().split()[0] for path in folder.glob("out.*")}
        assert len(texts) <= 1, f"mixed after step {step}"
        finish_interrupted(folder)
        pair = {name: (folder / name).read_text() for name in ("out.pth", "out.py")}
        kind = pair["out.pth"].split()[0]
        assert pair == {name: f"{kind} {name}" for name in pair}
        outcomes.add(kind)
        write_pair(folder, "later", overwrite=True)  # the next run works and tidies up
        assert names(folder) == ["out.pth", "out.py"]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            whole_runs += 1
            break
    assert whole_runs == 1
    assert outcomes == {"old", "new"}


def test_an_output_that_is_an_input_is_refused(tmp_path):
    config = tmp_path / "model.py"
    config.write_text("model = None")
    (tmp_path / "link.py").symlink_to(config)
    for name in ("model.py", "./model.py", "link.py"):
        with pytest.raises(ValueError, match="also an input"):
            check_writable([tmp_path / name], overwrite=True, inputs=[config, "vanillanet://5"])
    with pytest.raises(ValueError, match="named twice"):
        check_writable([tmp_path / "a.pth", tmp_path / "." / "a.pth"])
    assert config.read_text() == "model = None"


def test_unwritable_places_are_found_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        check_writable([tmp_path / "file" / "out.pth"])
    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_writable([tmp_path])

    def refuse(**kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", refuse)
    with pytest.raises(PermissionError, match=r"out\.pth cannot be written.*Permission denied"):
        check_writable([tmp_path / "new" / "out.pth"])
    assert names(tmp_path) == ["file"]


def test_files_of_two_folders_cannot_appear_together(tmp_path):
    paths = [tmp_path / "a" / "out.pth", tmp_path / "b" / "out.py"]
    with pytest.raises(ValueError, match="one folder"), appearing_together(paths):
        pass
