"""The tutorial on one's own data, docs/tutorial.ipynb, is executed from cell to cell."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import socketserver
import sys
import threading
from pathlib import Path

import pytest

from tests.docs import commands
from tests.helpers import ROOT

nbformat = pytest.importorskip("nbformat")
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
SHORT = "NUM_TRAIN, NUM_VAL, EPOCHS, ITERATIONS = 16, 8, 2, 4\n"
PROGRAM = """\
#!/bin/sh
exec "{python}" -m mmvanilla "$@"
"""
# Lets the server of the tools run a tool, and prints what it printed.
CLIENT = """\
#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect({address!r})
    client.sendall(json.dumps([os.getcwd(), *sys.argv[1:]]).encode() + b"\\n")
    status, printed = json.load(client.makefile())
print(printed)
sys.exit(status)
"""


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def command_lines(source: str) -> list[str]:
    """The command lines that a cell runs; what an f-string puts in is left as a placeholder."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run":
            text = node.args[0]
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            found.append(
                "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "CHECKPOINT"
                    for part in parts
                )
            )
    return found


def test_its_commands_can_be_read_by_their_tools(notebook):
    made = {"my_detector.py", "my_classifier.py", "my_segmenter.py"}
    lines = [line for cell in code_cells(notebook) for line in command_lines(cell.source)]
    tools = []
    for line in lines:
        (words,) = commands.split(line)
        commands.check_command(words, made)
        tools.append(words[1])
    assert {"check", "train", "test", "fuse_backbone", "visualize", "export"} <= set(tools)


def test_it_shows_what_it_gave_and_nothing_of_the_machine(notebook):
    """The outputs are kept, so that a reader sees them before installing anything."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 600_000
    assert not re.search(r"[\"' ]/(?:root|home|tmp|usr|work)\b", text)


def execute(notebook, folder, monkeypatch, program=PROGRAM, **names) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    # The command, whether or not the environment's folder of programs is on the path.
    command = folder / "bin" / "mmvanilla"
    command.parent.mkdir()
    command.write_text(program.format(python=sys.executable, **names))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    notebook.metadata.kernelspec = dict(name="python3", display_name="Python 3", language="python")
    resources = dict(metadata=dict(path=str(folder)))
    nbclient.NotebookClient(notebook, timeout=1800, resources=resources).execute()


@contextlib.contextmanager
def served(tools, address):
    """Let the server of the tools run what CLIENT asks for."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            folder, tool, *arguments = json.loads(self.rfile.readline())
            done = tools.run(f"{tool}.py", *arguments, folder=Path(folder), timeout=600)
            self.wfile.write(json.dumps([done.status, done.output + done.errors]).encode())

    with socketserver.UnixStreamServer(address, Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
@pytest.mark.toolbox("mmdet", "mmseg", "mmpretrain")
def test_it_runs_in_short(notebook, tmp_path, monkeypatch, forked_tools):
    """Everything that does not need a detector that finds something."""
    folder = tmp_path / "home"
    folder.mkdir()
    address = str(tmp_path / "server")
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = SHORT
    notebook.cells = [
        cell for cell in notebook.cells if "trained" not in cell.metadata.get("tags", [])
    ]
    with served(forked_tools, address):
        execute(notebook, folder, monkeypatch, CLIENT, address=address)
    assert (folder / "fused.pth").is_file()
    assert list((folder / "work_classifier").glob("epoch_*.pth"))
    assert list((folder / "work_segmenter").glob("iter_*.pth"))


@pytest.mark.exhaustive
@pytest.mark.toolbox("mmdet", "mmseg", "mmpretrain")
def test_it_runs_as_it_stands(notebook, tmp_path, monkeypatch):
    pytest.importorskip("mmdeploy.apis")
    pytest.importorskip("onnxruntime")
    execute(notebook, tmp_path, monkeypatch)
    assert (tmp_path / "detector.onnx").is_file()
    printed = "".join(
        output.text
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "stream"
    )
    precisions = re.findall(r"IoU=0\.50 .*= ([\d.]+)$", printed, flags=re.MULTILINE)
    trained, fused = (float(value) for value in precisions)
    assert trained > 0.3, "the detector finds little"
    assert fused == pytest.approx(trained, abs=0.01)
