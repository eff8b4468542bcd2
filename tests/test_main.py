import subprocess
import sys

import pytest

from mmvanilla import __main__ as entry
from tests.helpers import ROOT

ECHO = """\
import sys
import _shared
if __name__ == "__main__":
    print(_shared.word, sys.argv)
    sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    (tmp_path / "echo_back.py").write_text(ECHO)
    (tmp_path / "_shared.py").write_text("word = 'shared'\n")
    (tmp_path / "shout.sh").write_text("echo shouted $2 by $0; exit $1\n")
    (tmp_path / "README.md").touch()
    monkeypatch.setattr(entry, "tools_dir", lambda: tmp_path)
    monkeypatch.setattr(sys, "argv", ["mmvanilla"])
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    sys.modules.pop("_shared", None)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_lists_the_tools(tools, capsys, arguments):
    assert entry.main(arguments) == 0
    assert capsys.readouterr().out.split("tools:\n")[1] == "  echo_back\n  shout.sh\n"


@pytest.mark.parametrize("name", ["echo", "echo_back.py", "_shared", "README.md", "../setup", ""])
def test_unknown_tool(tools, capsys, name):
    assert entry.main([name, "x"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"error: unknown tool {name!r}; choose from echo_back, shout.sh\n"


@pytest.mark.parametrize("status", [0, 3])
def test_runs_a_tool_as_if_by_its_path(tools, capsys, status):
    with pytest.raises(SystemExit) as stop:
        entry.main(["echo_back", str(status), "--flag", "a b"])
    assert stop.value.code == status
    arguments = [str(tools / "echo_back.py"), str(status), "--flag", "a b"]
    assert capsys.readouterr().out == f"shared {arguments}\n"


@pytest.mark.parametrize("status", ["0", "3"])
def test_runs_shell_scripts_by_bash(tools, capfd, status):
    assert entry.main(["shout.sh", status, "a b"]) == int(status)
    assert capfd.readouterr().out == f"shouted a b by {tools / 'shout.sh'}\n"


def test_missing_tools_are_one_line(monkeypatch, capsys):
    def fail():
        raise RuntimeError("found no tools")

    monkeypatch.setattr(entry, "tools_dir", fail)
    assert entry.main([]) == 1
    assert capsys.readouterr().err == "error: found no tools\n"


def test_from_the_command_line(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "mmvanilla", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    listing = run()
    assert listing.returncode == 0, listing.stderr
    tools = {path.stem for path in (ROOT / "tools").glob("[!_]*.py")}
    assert tools <= set(listing.stdout.split())
    unknown = run("no_such_tool")
    assert unknown.returncode == 2
    assert unknown.stderr.splitlines()[-1].startswith("error: unknown tool 'no_such_tool'")
