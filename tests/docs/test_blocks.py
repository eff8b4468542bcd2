"""The code in the pages: command lines are what the tools take, and blocks do what they say."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from mmvanilla.apis.config import load_config
from mmvanilla.utils.dependencies import has_toolbox
from mmvanilla.utils.paths import config_path
from tests.docs.blocks import ALL_BLOCKS, PAGES, Block, blocks_of, commands_of, name_of, tool_of
from tests.helpers import CAN_EXPORT, ROOT

# Fewer and smaller images than the reader draws.
FEWER = ["--num-train", "8", "--num-val", "4", "--image-size", "64"]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def of_kind(kind: str, language: str) -> list[Block]:
    return [block for block in ALL_BLOCKS if (block.kind, block.language) == (kind, language)]


def groups() -> dict[str, list[Block]]:
    found = defaultdict(list)
    for block in of_kind("run", "sh"):
        found[f"{block.place.partition(':')[0]}, {block.detail}"].append(block)
    return found


def parse(tool: str, arguments: list[str]) -> None:
    """Let a tool's own parser read its arguments; placeholders stand for themselves."""
    path = ROOT / "tools" / f"{tool}.py"
    assert path.is_file(), f"there is no tools/{tool}.py"
    parser = runpy.run_path(str(path))["build_parser"]()
    parser.add_argument("--debug", action="store_true")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            args = parser.parse_args(["1" if word in "NHW" else word for word in arguments])
    except SystemExit as ended:
        assert not ended.code, f"{tool} does not take {arguments}: {said.getvalue()}"
        return
    config = getattr(args, "config", None)
    if isinstance(config, str) and "/" in config and "work_dirs" not in config:
        assert (ROOT / config).is_file() or config_path(config)


def check(words: list[str]) -> None:
    """Check one command line without running it; programs of others are not ours to check."""
    tool = tool_of(words)
    if tool is not None and tool[0][0].islower():
        parse(*tool)
    elif words[0] == "make":
        unknown = {word for word in words[1:] if "=" not in word} - TARGETS
        assert not unknown, f"the Makefile has no target {unknown}"
    elif words[:2] == ["python", "-m"] and words[2].startswith("projects."):
        assert (ROOT / (words[2].replace(".", "/") + ".py")).is_file(), words[2]


def test_every_block_is_marked():
    assert [block.place for block in ALL_BLOCKS if block.kind is None] == []
    assert of_kind("run", "sh") and of_kind("run", "python") and of_kind("config", "python")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_command_lines_can_be_read_by_their_tools(page):
    for block in blocks_of(page):
        for words in commands_of(block.code) if block.language == "sh" else []:
            check(words)
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for line in re.findall(r"`((?:mmvanilla|make|python -m) [^`\n…]+)`", text):
        words = line.replace("'", "").split()
        tool = tool_of(words)
        if tool is not None and tool[0][0].islower():
            assert (ROOT / "tools" / f"{tool[0]}.py").is_file(), line
        elif tool is None:
            check(words)


@pytest.mark.parametrize("block", of_kind("run", "python"), ids=lambda block: block.place)
def test_python_runs(block, tmp_path, monkeypatch):
    if "onnx" in block.code:
        pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block.code, block.place, "exec"), names)
    assert "mmvanilla" in names or any("mmvanilla" in str(each) for each in names.values())


@pytest.mark.parametrize("block", of_kind("config", "python"), ids=lambda block: block.place)
def test_configs_build(block, tmp_path):
    for toolbox in ("mmdet", "mmseg", "mmpretrain"):
        if f"{toolbox}::" in block.code and not has_toolbox(toolbox):
            pytest.skip(f"{toolbox} is not installed")
    code = block.code if re.search("^model = ", block.code, re.M) else f"{block.code}\nmodel = {{}}"
    path = tmp_path / "block.py"
    path.write_text(code, encoding="utf-8")
    cfg = load_config(str(path))
    named = (name for name in ("mmdet", "mmseg", "mmpretrain") if f"{name}." in cfg.text)
    init_default_scope(cfg.get("default_scope") or next(named, "mmengine"))
    parts = [cfg.model] if "type" in cfg.model else [cfg.get("backbone"), cfg.model.get("neck")]
    with torch.device("cpu" if "ResNet" in code else "meta"):  # a ResNet computes as it is built
        built = [MODELS.build(part) for part in parts if part and "type" in part]
    settings = ("optim_wrapper", "custom_hooks", "custom_imports", "_base_")
    assert built or any(f"{name} = " in code for name in settings), "nothing of it was read"


@pytest.mark.toolbox("mmdet", "mmpretrain")
@pytest.mark.parametrize(
    "group",
    [
        # The first screen always; the other pages have the same tools in other orders.
        pytest.param(group, marks=[] if group.startswith("README") else [pytest.mark.exhaustive])
        for group in groups()
    ],
)
def test_commands_run(group, run_tool, tmp_path):
    """The commands of a page, one after the other, in a folder of their own."""
    pytest.importorskip("onnxruntime")
    for block in groups()[group]:
        for words in commands_of(block.code):
            tool = tool_of(words)
            assert tool is not None, f"{block.place}: only our own tools are run, found {words}"
            if tool[0] in ("export", "predict", "quantize") and not CAN_EXPORT:
                continue
            more = FEWER if tool[0] == "make_shapes" else []
            status, printed = run_tool(tool[0], *tool[1], *more)
            assert status == 0, (
                f"{block.place}: {words}\n{printed.out[-2000:]}{printed.err[-2000:]}"
            )
    assert list(Path(tmp_path).iterdir())
