"""Every tool that reads a checkpoint × every way to it × every way in which it can be broken."""

from __future__ import annotations

import pytest

from tests.hostile.broken import CHECKPOINTS
from tests.hostile.rule import assert_refused

pytestmark = pytest.mark.toolbox("mmpretrain")

# Name of a way → the tool and its arguments; {file} is the checkpoint, {url} the folder's address.
WAYS: dict[str, tuple[str, ...]] = {
    "fuse": ("fuse_backbone.py", "good.py", "{file}", "out.pth"),
    "test": ("test.py", "good.py", "{file}"),
    "load_from": ("train.py", "good.py", "--cfg-options", "load_from={file}"),
    "resume": ("train.py", "good.py", "--resume", "{file}"),
    "init_cfg": ("train.py", "pretrained.py"),
    "export": ("export_onnx.py", "good.py", "{file}", "out.onnx"),
    "predict": ("visualize.py", "predict", "good.py", "{file}", "data/val/cat", "drawn"),
    "features": ("visualize.py", "features", "good.py", "{file}", "data/val/cat", "out.png"),
    "convert": ("convert_checkpoint.py", "{file}", "out.pth"),
    "test, http": ("test.py", "good.py", "{url}/{file}"),
    "fuse, http": ("fuse_backbone.py", "good.py", "{url}/{file}", "out.pth"),
    "resume, http": ("train.py", "good.py", "--resume", "{url}/{file}"),
    "test, file://": ("test.py", "good.py", "file://{folder}/{file}"),
    "test, vanillanet://": ("test.py", "good.py", "vanillanet://{folder}/{file}"),
}
# These show every kind of trouble: cut off, changed, running code, not fitting.
CORE = (
    "first half",
    "a flipped byte",
    "a zip that runs a command",
    "weights of another network",
)
CASES = [
    pytest.param(
        way,
        kind,
        id=f"{way}-{kind}",
        marks=() if way == "fuse" or kind in CORE else pytest.mark.exhaustive,
    )
    for way in WAYS
    for kind in CHECKPOINTS
]


@pytest.mark.parametrize(("way", "kind"), CASES)
def test_a_broken_checkpoint_is_refused(way, kind, forked_tools, home, address, tmp_path):
    good = (home / "good.pth").read_bytes()
    (home / "broken.pth").write_bytes(CHECKPOINTS[kind](good))
    tool, *arguments = (
        part.format(file="broken.pth", url=address, folder=home) for part in WAYS[way]
    )
    outcome = forked_tools.run(
        tool, *arguments, folder=home, environment={"TORCH_HOME": str(tmp_path / "torch")}
    )
    assert_refused(outcome, "broken.pth", home, may_write=("work",))


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=() if way in ("fuse", "test") else pytest.mark.exhaustive)
        for way in WAYS
        if way != "init_cfg"
    ],
)
def test_a_missing_checkpoint_is_refused(way, forked_tools, home, address, tmp_path):
    tool, *arguments = (
        part.format(file="nowhere.pth", url=address, folder=home) for part in WAYS[way]
    )
    outcome = forked_tools.run(
        tool, *arguments, folder=home, environment={"TORCH_HOME": str(tmp_path / "torch")}
    )
    assert_refused(outcome, "nowhere.pth", home, may_write=("work",))


# The good file is ours; converting and vanillanet:// are for the authors'.
@pytest.mark.parametrize(
    "way", [way for way in WAYS if way not in ("init_cfg", "convert", "test, vanillanet://")]
)
def test_the_good_checkpoint_is_taken_by_every_way(way, forked_tools, home, address, tmp_path):
    (home / "drawn").mkdir()
    tool, *arguments = (
        part.format(file="good.pth", url=address, folder=home) for part in WAYS[way]
    )
    options = []
    if way.startswith("resume"):
        options = ["--cfg-options", "train_cfg.max_epochs=2"]
    outcome = forked_tools.run(
        tool,
        *arguments,
        *options,
        folder=home,
        environment={"TORCH_HOME": str(tmp_path / "torch")},
    )
    assert outcome.status == 0, outcome.errors[-3000:]
