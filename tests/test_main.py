"""The console script: lists, finds and runs the tools, and says what the user typed."""

import subprocess
import sys

import pytest

import mmvanilla
from mmvanilla import __main__ as entry
from tests.helpers import ROOT

TOOLS = {path.stem: path for path in (ROOT / "tools").glob("[!_]*.py")}


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/env/bin/mmvanilla"])


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_lists_the_tools_with_what_they_do(capsys, arguments):
    assert entry.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: mmvanilla TOOL [ARGUMENT ...]"
    listed = dict(line.split(maxsplit=1) for line in lines[6:])
    assert listed.keys() == TOOLS.keys()
    assert listed["train"] == "Train a detector, segmenter or classifier"
    assert entry.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mmvanilla {mmvanilla.__version__}\n"


@pytest.mark.parametrize("name", ["trian", "README.md", "../setup", "--verbose"])
def test_unknown_tool(capsys, name):
    assert entry.main([name, "x"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"error: unknown tool {name!r}; `mmvanilla --help` lists all tools\n"


@pytest.mark.parametrize("name", ["get_flops", "get-flops", "get_flops.py"])
def test_a_tool_is_called_what_the_user_typed(capsys, name):
    with pytest.raises(SystemExit) as stop:
        entry.main([name, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: mmvanilla get_flops ")


def run(*command, cwd):
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def run_script(*arguments, code="pass", cwd):
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['/bin/mmvanilla', "
    start += ", ".join(map(repr, arguments)) + "]; import mmvanilla_command; "
    return run("-c", f"{start}{code}; sys.exit(mmvanilla_command.main())", cwd=cwd)


def test_what_is_not_installed_is_one_line(tmp_path):
    done = run_script("train", "x.py", code="sys.modules['mmengine'] = None", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "mmengine" in line


def test_a_server_without_libgl(tmp_path):
    reason = "libGL.so.1: cannot open shared object file"
    (tmp_path / "cv2.py").write_text(f"raise ImportError({reason!r})")
    done = run_script("train", "x.py", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {reason}; run ")
    documented = (ROOT / "docs" / "setup.md").read_text(encoding="utf-8")
    assert line.partition("; run ")[2] in documented


def test_the_script_lists_its_tools_without_torch(tmp_path):
    absent = "sys.modules['torch'] = sys.modules['mmengine'] = None"
    done = run_script("--help", code=absent, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: mmvanilla TOOL")


def test_a_reader_that_has_enough_is_no_error():
    line = f"{sys.executable} -m mmvanilla --help | head -n 0"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
