"""The tutorial on one's own data, docs/tutorial.ipynb: its commands, and that it runs."""

from __future__ import annotations

import ast
import os
import re
import sys

import pytest

from tests.docs.blocks import commands_of
from tests.docs.test_blocks import check
from tests.helpers import ROOT

nbformat = pytest.importorskip("nbformat")
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
ROWS = re.compile(r"(?:\\n|')│ (\w[^│]*?) +│")  # of the tables that the tools print
# Enough that something is detected, and that no batch has a single image.
SHORT = "NUM_TRAIN, NUM_VAL, EPOCHS, ITERATIONS = 52, 8, 6, 4\n"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_its_commands_can_be_read_by_their_tools(notebook):
    tools = set()
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run":
                text = node.args[0]
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                line = "".join(x.value if isinstance(x, ast.Constant) else "FILE" for x in parts)
                if line.startswith("python -m projects."):  # read by the tests of projects
                    continue
                (words,) = commands_of(line)
                check(words)
                tools.add(words[1])
    assert {"check", "train", "test", "fuse_backbone", "visualize"} <= tools


def test_it_shows_what_it_gave_and_nothing_of_the_machine(notebook):
    """The outputs are kept, so that a reader sees them before installing anything."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"[\"' ]/(?:root|home|tmp|usr|work)\b", text)


@pytest.mark.exhaustive
@pytest.mark.toolbox("mmdet", "mmseg", "mmpretrain")
def test_it_runs_in_short(notebook, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    stored = set(ROWS.findall(str(notebook.cells)))
    pytest.importorskip("ipykernel")
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = SHORT
    # The commands, whether or not the environment's folder of programs is on the path.
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, module in {"mmvanilla": "-m mmvanilla", "python": ""}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook.metadata.kernelspec = dict(name="python3", display_name="Python 3", language="python")
    resources = dict(metadata=dict(path=str(tmp_path)))
    nbclient.NotebookClient(notebook, timeout=1800, resources=resources).execute()
    assert (tmp_path / "fused.pth").is_file()
    assert set(ROWS.findall(str(notebook.cells))) == stored
