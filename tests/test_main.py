"""The console script: lists, finds and runs the tools, and says what the user typed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmvanilla
import mmvanilla_command
from mmvanilla import __main__ as entry
from mmvanilla.utils import paths
from tests.helpers import ROOT

ECHO = '''\
"""Echo everything back.

More about it.
"""
import sys
import _shared
if __name__ == "__main__":
    print(_shared.word, COMMAND, sys.argv)
    sys.exit(int(sys.argv[1]))
'''
SHOUT = """\
#!/usr/bin/env bash
# Shout it out.
echo "shouted $2 by $0 in $(basename "${BASH_SOURCE[0]}")"; exit "$1"
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    (tmp_path / "echo_back.py").write_text(ECHO)
    (tmp_path / "_shared.py").write_text("word = 'shared'\n")
    (tmp_path / "shout.sh").write_text(SHOUT)
    (tmp_path / "train.py").write_text('"""Train it."""\n')
    (tmp_path / "README.md").touch()
    loaded = entry._load
    fake = type("Paths", (), {"tools_dir": staticmethod(lambda: tmp_path)})
    monkeypatch.setattr(entry, "_load", lambda name: fake if "paths" in name else loaded(name))
    monkeypatch.setattr(sys, "argv", ["mmvanilla"])
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    sys.modules.pop("_shared", None)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["help"]])
def test_lists_the_tools_in_order_with_what_they_do(tools, capsys, arguments):
    assert entry.main(arguments) == 0
    head, _, listed = capsys.readouterr().out.partition("train and test:\n")
    assert head.startswith("usage: mmvanilla TOOL [ARGUMENT ...]\n")
    assert listed == (
        "  train      Train it\n\nmore:\n  echo_back  Echo everything back\n"
        "  shout.sh   Shout it out\n"
    )


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(tools, capsys, option):
    assert entry.main([option]) == 0
    assert capsys.readouterr().out == f"mmvanilla {mmvanilla.__version__}\n"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("echo_bak", "did you mean echo_back? "),
        ("trian", "did you mean train? "),
        ("train.py", "did you mean train? "),
        ("_shared", ""),
        ("README.md", ""),
        ("../setup", ""),
        ("", ""),
        ("--verbose", ""),
    ],
)
def test_unknown_tool(tools, capsys, name, hint):
    assert entry.main([name, "x"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        f"error: unknown tool {name!r}; {hint}`mmvanilla --help` lists all tools\n"
    )


@pytest.mark.parametrize("name", ["echo_back", "echo-back"])
@pytest.mark.parametrize(
    ("started", "shown"),
    [("/env/bin/mmvanilla", "mmvanilla"), ("/x/mmvanilla/__main__.py", "python -m mmvanilla")],
)
@pytest.mark.parametrize("status", [0, 3])
def test_a_tool_runs_as_by_its_path_and_knows_what_the_user_typed(
    tools, capsys, monkeypatch, name, started, shown, status
):
    monkeypatch.setattr(sys, "argv", [started])
    with pytest.raises(SystemExit) as stop:
        entry.main([name, str(status), "--flag", "a b"])
    assert stop.value.code == status
    arguments = [str(tools / "echo_back.py"), str(status), "--flag", "a b"]
    assert capsys.readouterr().out == f"shared {shown} echo_back {arguments}\n"


@pytest.mark.parametrize("name", ["shout.sh", "shout"])
@pytest.mark.parametrize("status", ["0", "3"])
def test_runs_shell_scripts_by_bash(tools, capfd, name, status):
    assert entry.main([name, status, "a b"]) == int(status)
    assert capfd.readouterr().out == "shouted a b by mmvanilla shout.sh in shout.sh\n"


@pytest.mark.parametrize("script", ["dist_train.sh", "dist_test.sh", "slurm_train.sh"])
def test_the_usage_of_shell_scripts(capfd, monkeypatch, script):
    monkeypatch.setattr(sys, "argv", ["mmvanilla"])
    assert entry.main([script, "--help"]) == 0
    assert capfd.readouterr().out.startswith(f"usage: mmvanilla {script} ")
    assert entry.main([script]) == 2
    assert capfd.readouterr().err.startswith(f"usage: mmvanilla {script} ")


def test_missing_tools_are_one_line(monkeypatch, capsys):
    def fail():
        raise RuntimeError("found no tools")

    monkeypatch.setattr(entry, "find_tools", fail)
    assert entry.main([]) == 1
    assert capsys.readouterr().err == "error: found no tools\n"


def test_what_is_not_installed_is_one_line(tools, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mmvanilla", None)  # as if its import failed
    assert entry.main(["echo_back"]) == 1
    assert capsys.readouterr().err.startswith("error: import of mmvanilla halted")


def test_every_tool_says_in_one_line_what_it_does():
    for name, path in entry.find_tools().items():
        line = entry.describe(path)
        assert 10 < len(line) <= 80, f"{name}: {line!r}"
        assert line[0].isupper() and not line.endswith("."), f"{name}: {line!r}"


def test_groups_name_no_tool_twice_and_every_tool_of_today():
    listed = [name for names in entry.GROUPS.values() for name in names]
    assert len(set(listed)) == len(listed)
    assert set(entry.find_tools()) <= set(listed)


def run(*command, cwd):
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def test_from_the_command_line(tmp_path):
    listing = run("-m", "mmvanilla", cwd=tmp_path)
    assert listing.returncode == 0, listing.stderr
    tools = {path.stem for path in (ROOT / "tools").glob("[!_]*.py")}
    assert tools <= set(listing.stdout.split())
    assert listing.stdout.startswith("usage: python -m mmvanilla TOOL")
    wrong = run("-m", "mmvanilla", "train", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "usage: python -m mmvanilla train [-h]" in wrong.stderr
    assert wrong.stderr.splitlines()[-1].startswith("python -m mmvanilla train: error: ")


def test_the_script_lists_its_tools_without_torch(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['/bin/mmvanilla', '--help'];"
        "import mmvanilla_command; code = mmvanilla_command.main();"
        "print({'torch', 'mmengine', 'mmvanilla'} & set(sys.modules)); sys.exit(code)"
    )
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: mmvanilla TOOL")
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_script_of_an_incomplete_installation(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert mmvanilla_command.main() == 1
    assert capsys.readouterr().err.startswith("error: ")


COMMAND = re.compile(r"python (?:-u )?tools/|(?<![\w/])tools/[a-z_]+\.(?:py|sh)|make demo")


@pytest.mark.parametrize("folder", ["mmvanilla", "configs", "tools"])
def test_nothing_that_an_installed_package_prints_names_files_of_a_clone(folder):
    """`tool_command` gives what is right in both; docstrings and comments say `mmvanilla TOOL`."""
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sh", ".yml") and ".mim" not in path.parts
        for line in path.read_text(encoding="utf-8").splitlines()
        if COMMAND.search(line)
    }
    assert found == set()


@pytest.mark.parametrize("folder", ["mmvanilla", "configs", "tools"])
def test_commands_in_texts_name_tools_and_configs_that_exist(folder):
    tools = entry.find_tools()
    for path in sorted((ROOT / folder).rglob("*.py")):
        if ".mim" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"[`#] *mmvanilla ([a-z_]+(?:\.sh)?)\b", text):
            assert name in tools, f"{path} names {name}"
        for name in re.findall(r'tool_command\(["\']([\w.]+)["\']\)', text):
            assert name in tools, f"{path} names {name}"
        for config in re.findall(r"mmvanilla (?:train|test|run_ablations) ([\w./]+\.py)", text):
            assert Path(paths.resolve_config(config)).is_file(), f"{path} names {config}"
