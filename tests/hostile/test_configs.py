"""Every tool that reads a config × every way in which one can be broken."""

from __future__ import annotations

import pytest

from tests.hostile.broken import CONFIGS
from tests.hostile.rule import assert_refused

pytestmark = pytest.mark.toolbox("mmpretrain")

WAYS: dict[str, tuple[str, ...]] = {
    "train": ("train.py", "broken.py"),
    "test": ("test.py", "broken.py", "good.pth"),
    "fuse": ("fuse_backbone.py", "broken.py", "good.pth", "out.pth"),
    "export": ("export_onnx.py", "broken.py", "good.pth", "out.onnx"),
    "quantize": ("quantize_onnx.py", "broken.py", "good.onnx", "int8.onnx"),
    "flops": ("get_flops.py", "broken.py"),
    "check": ("check.py", "broken.py"),
    "predict": ("visualize.py", "predict", "broken.py", "good.pth", "data/val/cat", "drawn"),
    "features": ("visualize.py", "features", "broken.py", "good.pth", "data/val/cat", "out.png"),
}
CORE = ("a syntax error", "without a model", "it leaves")
# Quantising takes data from the config and the model from a file.
_NO_MODEL_NEEDED = {
    "quantize": (
        "without a model",
        "an unknown model",
        "an unknown backbone",
        "an unknown argument",
        "an unknown variant",
        "a model that is no dict",
    )
}
CASES = [
    pytest.param(
        way,
        kind,
        id=f"{way}-{kind}",
        marks=() if way == "fuse" or kind in CORE else pytest.mark.exhaustive,
    )
    for way in WAYS
    for kind in CONFIGS
    if kind not in _NO_MODEL_NEEDED.get(way, ())
]


@pytest.mark.parametrize(("way", "kind"), CASES)
def test_a_broken_config_is_refused(way, kind, forked_tools, home):
    content = CONFIGS[kind]
    if isinstance(content, str):
        content = content.replace("{good!r}", "'good.py'").encode()
    (home / "broken.py").write_bytes(content)
    tool, *arguments = WAYS[way]
    outcome = forked_tools.run(tool, *arguments, folder=home)
    assert_refused(outcome, "broken.py", home, may_write=("work", "work_dirs"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "place",
    [
        "nowhere.py",
        pytest.param("data", marks=pytest.mark.exhaustive),
        pytest.param("good.pth", marks=pytest.mark.exhaustive),
    ],
)
def test_what_is_no_config_is_refused(way, place, forked_tools, home):
    tool, *arguments = (place if part == "broken.py" else part for part in WAYS[way])
    outcome = forked_tools.run(tool, *arguments, folder=home)
    assert_refused(outcome, place, home)
