import subprocess
import venv

import pytest

from mmvanilla.utils.startup import runs_as_command
from tests.helpers import ROOT


@pytest.mark.parametrize(
    ("argv", "orig_argv", "expected"),
    [
        (["/venv/bin/mmvanilla", "train"], ["python", "/venv/bin/mmvanilla", "train"], True),
        ([r"mmvanilla.exe"], ["mmvanilla.exe"], True),
        (["-m", "train"], ["python", "-X", "dev", "-m", "mmvanilla", "train"], True),
        (["-m"], ["python", "-m", "pytest", "mmvanilla"], False),
        (["-m"], ["python", "-m", "pdb"], False),
        (["theirs.py", "mmvanilla"], ["python", "theirs.py", "mmvanilla"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_which_processes_are_commands_of_ours(argv, orig_argv, expected):
    assert runs_as_command(argv, orig_argv) == expected


@pytest.fixture(scope="module")
def empty_python(tmp_path_factory):
    """Return the interpreter of an environment in which nothing is installed."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


ONE_COMMAND = "Install by `pip install --no-cache-dir onedl-mmengine==0.10.12 onedl-mmcv==2.3.6`"


def run(python, *arguments):
    return subprocess.run(
        [python, *arguments],
        capture_output=True,
        text=True,
        cwd=python.parent,
        env={"PYTHONPATH": str(ROOT)},
    )


def test_without_any_openmmlab_an_import_names_one_command(empty_python):
    done = run(empty_python, "-c", "import mmvanilla")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith((" ", "Traceback"))]
    assert line.startswith("ImportError: mmengine and mmcv are not installed. ")
    assert ONE_COMMAND in line
    assert line.count("`") == 2


@pytest.mark.parametrize("arguments", [[], ["--help"], ["train", "config.py"]])
def test_without_any_openmmlab_a_command_says_so_in_one_line(empty_python, arguments):
    done = run(empty_python, "-m", "mmvanilla", *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: mmengine and mmcv are not installed. ")
    assert ONE_COMMAND in line
