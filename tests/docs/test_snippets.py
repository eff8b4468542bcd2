"""Every block of code in README and docs is run, or checked as far as that goes."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, init_default_scope
from torch import nn

from mmvanilla import VanillaNet
from mmvanilla.models.fusion import FusableLayer
from mmvanilla.utils.dependencies import has_toolbox
from tests.docs import commands
from tests.docs.snippets import ALL_BLOCKS, PAGES, Block, blocks_of
from tests.helpers import ROOT, tiny_arch

SHELL = [block for block in ALL_BLOCKS if block.language == "sh"]
PYTHON = [block for block in ALL_BLOCKS if block.language == "python"]
# What a group of commands may cost here: fewer images than the reader draws, and small ones for the
# first screen, which is always run.
FEWER = ["--num-train", "36", "--num-val", "12"]
FEWEST = ["--num-train", "8", "--num-val", "4", "--image-size", "64"]
OPEN_MMLAB = ("mmdet", "mmseg", "mmpretrain")


def of_kind(kind: str, blocks: list[Block]) -> list[Block]:
    return [block for block in blocks if block.kind == kind]


def groups() -> dict[str, list[Block]]:
    """The blocks of commands to run, in the order of their page, by page and group."""
    found = defaultdict(list)
    for block in of_kind("run", SHELL):
        found[f"{block.page}, {block.detail}"].append(block)
    return dict(found)


def need_toolbox_of(text: str) -> None:
    for name in OPEN_MMLAB:
        if name in text and not has_toolbox(name):
            pytest.skip(f"{name} is not installed")


def test_every_block_is_marked():
    unmarked = [str(block) for block in ALL_BLOCKS if block.kind is None]
    assert not unmarked, (
        f"no test runs {', '.join(unmarked)}: write one of the marks of tests/docs/snippets.py"
    )
    assert of_kind("run", SHELL) and of_kind("run", PYTHON) and of_kind("config", PYTHON)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```sh\nmake test\n```\n", None),
        ("<!-- needs: a GPU -->\n```sh\nmake test\n```\n", "needs"),
        ("text\n\n    make test\n", None),
        ("<!-- every block needs: a GPU -->\n\n```python\nx = 1\n```\n", "needs"),
        ("- item\n\n  <!-- run: a -->\n  ```sh\n  make test\n  ```\n", "run"),
    ],
)
def test_marks_are_found(tmp_path, text, message):
    page = tmp_path / "page.md"
    page.write_text(text)
    (block,) = blocks_of(page)
    assert block.kind == message
    assert block.code in ("make test\n", "x = 1\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_command_lines_can_be_read_by_their_tools(page):
    made: set[str] = set()
    for block in blocks_of(page):
        if block.language == "sh":
            try:
                commands.check_block(block.code, made)
            except ValueError as error:
                pytest.fail(f"{block}: {error}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mmvanilla trian CONFIG", "no tools/trian.py"),
        ("mmvanilla train CONFIG --amq", "does not take"),
        ("python tools/train.py configs/nothing.py", "no config configs/nothing.py"),
        ("mmvanilla test imagenet/vanillanet9_in1k.py vanillanet://19", "no weights are called"),
        ("tools/dist_train.sh CONFIG", "takes CONFIG GPUS"),
        ("tools/dist_train.sh CONFIG 8 --nothing", "which has none"),
        ("make nothing", "no target nothing"),
        ("pip install '.[nothing]'", "no extra nothing"),
        ("pip install torch==1.0.0", "not the version"),
        ("pip install requsts", "no lock file has it"),
        ("frobnicate", "nobody checks"),
    ],
)
def test_wrong_command_lines_are_found(line, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        commands.check_block(line, set())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_within_sentences_exist(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for found in re.findall(r"`([^`\n]+)`", text):
        words = shlex.split(found.replace("'", "")) if "…" not in found else []
        if not words or words[0] not in ("mmvanilla", "python", "make") or len(words) == 1:
            continue
        if words[0] == "make":
            commands._check_make(words[1:])
            continue
        tool = commands.tool_of(words)
        if tool is None:
            assert (ROOT / words[1]).is_file() or words[1].startswith("-"), found
        elif tool[0] not in commands.NO_TOOL | commands.BUILT_IN | {"TOOL"}:
            name = tool[0]
            assert (ROOT / "tools" / (name if name.endswith(".sh") else f"{name}.py")).is_file()
            given = {word for word in tool[1] if word.startswith("--")}
            if given:
                assert given <= commands.options_of(name), f"{page.name}: {found}"


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_names_in_python_resolve(block):
    tree = ast.parse(block.code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                need_toolbox_of(alias.name)
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            need_toolbox_of(str(node.module))
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert alias.name == "*" or hasattr(module, alias.name), (
                    f"{block}: {node.module}.{alias.name}"
                )
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("mmvanilla", "torch")
        ):
            module = importlib.import_module(node.value.id)
            assert hasattr(module, node.attr), f"{block}: {node.value.id}.{node.attr}"


@pytest.mark.parametrize("block", of_kind("run", PYTHON), ids=str)
def test_python_runs(block, tmp_path, monkeypatch):
    if "onnx" in block.code:
        pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    exec(compile(block.code, str(block), "exec"), {})


@pytest.mark.parametrize("block", of_kind("config", PYTHON), ids=str)
def test_configs_build(block, tmp_path):
    need_toolbox_of(block.code.replace("mmvanilla", ""))
    if "config_path" in block.code:
        pytest.importorskip("mmdet")
    path = tmp_path / "block.py"
    path.write_text(block.code, encoding="utf-8")
    cfg = Config.fromfile(str(path))
    scope = next((name for name in OPEN_MMLAB if f"{name}." in cfg.text), "mmengine")
    scope = cfg.get("default_scope", scope)
    init_default_scope(scope)
    if scope in OPEN_MMLAB:
        importlib.import_module(f"{scope}.models")
    built = 0
    for name in ["model"] if "type" in cfg.get("model", {}) else ["backbone", "neck"]:
        if name in cfg:
            # Full-size models without the memory; a ResNet computes in its constructor.
            with torch.device("cpu" if "ResNet" in block.code else "meta"):
                model = MODELS.build(cfg[name])
            built += 1
            if "VanillaNet" in block.code or "ConvPair" in block.code:
                assert name == "neck" or any(
                    isinstance(module, FusableLayer) for module in model.modules()
                )
    for hook in cfg.get("custom_hooks", []):
        HOOKS.build(hook)
        built += 1
    if "optim_wrapper" in cfg:
        model = nn.ModuleDict(dict(backbone=VanillaNet(tiny_arch("13")), head=nn.Linear(2, 2)))
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        assert len(wrapper.param_groups) > 0
        built += 1
    for name in cfg.get("custom_imports", {}).get("imports", []):
        importlib.import_module(name)
        built += 1
    assert built, f"{block} has nothing that this test builds"


@pytest.mark.slow
@pytest.mark.toolbox("mmdet", "mmpretrain")
@pytest.mark.parametrize(
    "group",
    [
        # The first screen always; the other pages have the same tools in other orders.
        pytest.param(group, marks=[] if group.startswith("README") else [pytest.mark.exhaustive])
        for group in groups()
    ],
)
def test_commands_run(group, tmp_path):
    """The commands of a page, one after the other, in a folder of their own."""
    pytest.importorskip("onnxruntime")
    for block in groups()[group]:
        for words in commands.split(block.code):
            tool = commands.tool_of(words)
            assert tool is not None, f"{block}: only our own tools are run, found {words}"
            fewer = FEWEST if group.startswith("README") else FEWER
            more = fewer if tool[0] == "make_shapes" else []
            done = subprocess.run(
                [sys.executable, "-m", "mmvanilla", tool[0], *tool[1], *more],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"},
            )
            output = done.stdout[-2000:] + done.stderr[-2000:]
            assert done.returncode == 0, f"{block}: {shlex.join(words)}\n{output}"
