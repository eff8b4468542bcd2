"""kill -9 at random moments: nothing half-written is taken for whole, and the next run works."""

from __future__ import annotations

import random
import shutil
import time

import pytest

from mmvanilla.checkpoints.reading import read_checkpoint
from tests.hostile.rule import snapshot

pytestmark = [pytest.mark.exhaustive, pytest.mark.toolbox("mmpretrain")]

KILLED = -9
KILLS = 10
# What is killed, and the files that it writes.
WORK: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "training": (("train.py", "good.py", "--cfg-options", "train_cfg.max_epochs=3"), ()),
    "fusing": (("fuse_backbone.py", "good.py", "good.pth", "out.pth"), ("out.pth", "out.py")),
    "exporting": (("export_onnx.py", "good.py", "good.pth", "out.onnx"), ("out.onnx",)),
    "converting": (
        ("convert_checkpoint.py", "authors.pth", "out.pth", "--strides", "2", "2", "2"),
        ("out.pth",),
    ),
    "make_shapes": (
        ("make_shapes.py", "made", "--num-train", "20", "--num-val", "4", "--image-size", "32"),
        ("made",),
    ),
}


def visible(folder):
    """What a user sees: no hidden name of unfinished work."""
    return {
        name: digest
        for name, digest in snapshot(folder).items()
        if not any(part.startswith(".") for part in name.split("/"))
    }


def hidden(folder):
    return [name for name in snapshot(folder) if name.rpartition("/")[2].startswith(".")]


@pytest.mark.parametrize("aim", ["at any moment", "at the writing"])
@pytest.mark.parametrize("work", WORK)
def test_what_a_kill_leaves_is_never_taken_for_whole(work, aim, forked_tools, home, template):
    (tool, *arguments), written = WORK[work]
    shutil.copy(template / "authors.pth", home / "authors.pth")
    whole = shutil.copytree(home, home.parent / "whole")
    start = time.monotonic()
    done = forked_tools.run(tool, *arguments, folder=whole)
    length = time.monotonic() - start
    assert done.status == 0, done.errors[-2000:]
    expected = snapshot(whole)
    rng = random.Random(f"{work} {aim}")
    killed = 0
    for _ in range(4 * KILLS):
        if killed == KILLS:
            break
        kill = {"after": rng.uniform(0.0, length)}
        if aim == "at the writing":
            kill = {"writes": rng.randint(1, 6), "after": rng.choice((0.0, 0.001, 0.005, 0.02))}
        options = ["--resume"] if work == "training" else []
        outcome = forked_tools.run(tool, *arguments, *options, folder=home, kill=kill)
        if outcome.status != KILLED:  # it was faster than the kill: begin again
            assert outcome.status == 0, outcome.errors[-2000:]
            _remove(home, *written, "work")
            continue
        killed += 1
        for path in home.rglob("*.pth"):
            if not any(part.startswith(".") for part in path.relative_to(home).parts):
                assert read_checkpoint(path)
        for name in written:
            if (home / name).is_file():
                is_whole = snapshot(home)[name] == expected[name]
                assert is_whole, f"{name} is not what an undisturbed run writes"
        if written and all((home / name).exists() for name in written):
            _remove(home, *written)  # the kill came after the writing
    assert killed >= KILLS // 2, f"only {killed} of the kills came in time"
    # The next run takes what is whole, writes the rest, and cleans up.
    options = ["--overwrite"] if work in ("fusing", "exporting", "converting") else []
    options = ["--resume"] if work == "training" else options
    last = forked_tools.run(tool, *arguments, *options, folder=home)
    assert last.status == 0, last.errors[-2000:]
    left = visible(home)
    assert left.keys() >= {name for name in expected if not name.startswith("work")}
    for name in expected:
        if name.startswith(tuple(written)):
            assert left[name] == expected[name], f"{name} is not what an undisturbed run writes"
    assert not hidden(home), hidden(home)
    if work == "training":
        assert (home / "work" / "epoch_3.pth").is_file()


def _remove(home, *names):
    for name in names:
        path = home / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
