"""The check of a release, with commands that only pretend; each failure must stop it."""

import importlib
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Return the script, whose commands are noted and answered by ``check.answers``."""
    monkeypatch.syspath_prepend(ROOT / "requirements")
    module = importlib.import_module("release_check")
    module.calls, module.answers, module.scratch = [], {}, tmp_path / "scratch"

    def command(words, folder=None):
        line = " ".join(map(str, words))
        module.calls.append(line)
        if " -m build " in line:
            dist = Path(words[words.index("--outdir") + 1])
            dist.mkdir()
            for name in ("mmvanilla-1.tar.gz", "mmvanilla-1-py3-none-any.whl"):
                (dist / name).touch()
        for part, answer in module.answers.items():
            if part in line:
                if isinstance(answer, Exception):
                    raise answer
                return answer
        if "config_path" in line:
            return f"noise\n{module.scratch}/empty/lib/mmvanilla/.mim/configs/a.py\n"
        return "accuracy/top1: 50.0000 data_time: 0.1\n" if " test " in line else ""

    def mkdtemp(prefix):
        module.scratch.mkdir()
        return str(module.scratch)

    monkeypatch.setattr(module, "run", command)
    monkeypatch.setattr(module, "output_of", command)
    monkeypatch.setattr(module.tempfile, "mkdtemp", mkdtemp)
    yield module
    for name in ("common", "release_check"):
        del sys.modules[name]


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / "dist").mkdir(parents=True)
    (folder / "dist" / "older.whl").touch()
    (folder / ".git").mkdir()
    (folder / "setup.py").touch()
    return folder


def left_in(folder):
    return sorted(path.name for path in (folder / "dist").iterdir())


def index_of(calls, part):
    (number, *_) = [number for number, call in enumerate(calls) if part in call]
    return number


def test_a_release_that_passes_is_in_dist(check, project, capsys):
    assert check.main(["--project", str(project)]) == 0
    assert left_in(project) == ["mmvanilla-1-py3-none-any.whl", "mmvanilla-1.tar.gz"]
    assert "the release passed in" in capsys.readouterr().out.splitlines()[-1]
    assert not check.scratch.exists()
    order = ("-m build", "twine check --strict", "-py3-none-any.whl[lite]", "pip check")
    order += ("make_shapes", " train ", "fuse_backbone", "uninstall", "--no-deps mmcv-lite==2.1.0")
    numbers = [index_of(check.calls, part) for part in order]
    assert numbers == sorted(numbers)
    # Once with the fork's mmcv, and once with mmcv-lite.
    for part in (" train ", " fuse_backbone ", "fused.pth --work-dir"):
        assert sum(part in call for call in check.calls) == 2


OTHER_CONFIG = "noise\n/somewhere/configs/a.py\n"


@pytest.mark.parametrize(
    ("part", "answer", "message"),
    [
        ("-m build", None, "did not build"),
        ("twine check", None, "markup is wrong"),
        ("pip check", None, "nothing fits"),
        (" train ", None, "no such tool"),
        ("config_path", OTHER_CONFIG, "not from the installed package"),
        (" test ", "nothing\n", "printed no accuracy/top1"),
        (
            "test fused.py",
            "accuracy/top1: 51.0000\n",
            "50.0000 when trained and 51.0000 when fused",
        ),
        ("mmcv-lite", None, "not there"),
    ],
)
def test_a_failure_stops_it_and_leaves_dist_alone(check, project, capsys, part, answer, message):
    check.answers[part] = answer or check.SetupError(message)
    assert check.main(["--project", str(project)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert left_in(project) == ["older.whl"]
    assert not check.scratch.exists()


def test_a_command_that_fails_is_named_with_its_last_words(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(ROOT / "requirements")
    module = importlib.import_module("release_check")
    monkeypatch.setenv("PYTHONPATH", "/a/clone")
    script = "import os; print(os.environ.get('PYTHONPATH'), os.getcwd()); exit({})"
    assert module.output_of([sys.executable, "-c", script.format(0)], tmp_path) == (
        f"None {tmp_path}\n"
    )
    with pytest.raises(module.SetupError, match=r"this command failed: .*\(None "):
        module.output_of([sys.executable, "-c", script.format(3)], tmp_path)
    assert capsys.readouterr().out.count("None") == 2  # shown while it runs
    for name in ("common", "release_check"):
        del sys.modules[name]
