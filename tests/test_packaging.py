"""What is built, what is pinned, and what make does."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import mmvanilla
from mmvanilla.utils.dependencies import TOOLBOXES
from tests.helpers import ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PYTHONS = {"3.10", "3.11", "3.12", "3.13"}

if not LOCKS:
    pytest.skip("not in a clone", allow_module_level=True)


def pins(*stems: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for stem in stems:
        for line in (ROOT / "requirements" / f"{stem}.txt").read_text().splitlines():
            if line and not line.startswith("#"):
                name, version = line.split(";")[0].strip().split("==")
                found.setdefault(name.lower(), []).append(version)
    return found


def run(*command: object, cwd: Path, **variables: str) -> str:
    words, env = [*map(str, command)], {**os.environ, **variables}
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_requirement_is_pinned_once_for_each_python_and_names_no_place(lock):
    lines = [line for line in lock.read_text().splitlines() if line and line[0] != "#"]
    for line in lines:
        pin = r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*"
        assert re.fullmatch(rf'{pin}(; [a-z_]+ [<>=]+ ".*")?', line), line
    for name, versions in pins(lock.stem).items():
        if len(versions) > 1:
            of_one = [line for line in lines if line.lower().startswith(f"{name}==")]
            markers = [line.partition("python_version ")[2] for line in of_one]
            assert markers == ['>= "3.11"', '< "3.11"'], name


def test_pins_are_the_versions_that_error_messages_name():
    locked = pins("fork", "original")
    for entry in (entry for entries in TOOLBOXES.values() for entry in entries):
        if entry.name != "mmcv":  # which make compiles, in the version of mmcv-lite
            assert locked[entry.name] == [entry.tested]
    for stack in ("fork", "original"):
        names = [name for stem in (stack, "dev", "no-deps") for name in pins(stem)]
        assert len(set(names)) == len(names)
    assert pins("fork")["opencv-python"] == pins("fork")["opencv-python-headless"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a wheel built from a source distribution of a copy of the clone, and that archive."""
    pytest.importorskip("setuptools", minversion="77")
    base = tmp_path_factory.mktemp("packaging")
    clone = base / "clone"
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "work_dirs", "data")
    shutil.copytree(ROOT, clone, ignore=unwanted)
    shutil.copytree(ROOT / "tests" / "data", clone / "tests" / "data")
    (clone / "configs" / "probe.py").write_text("only_in_the_wheel = 1\n")
    backend = "import setuptools.build_meta as backend; backend.build_sdist('dist')"
    run(sys.executable, "-c", backend, cwd=clone)
    (archive,) = (clone / "dist").glob("*.tar.gz")
    options = ("-q", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", base)
    run(sys.executable, "-m", "pip", "wheel", *options, archive, cwd=base)
    (wheel,) = base.glob("*.whl")
    return zipfile.ZipFile(wheel), archive


def scripts_in(folder: str) -> set[str]:
    paths = (ROOT / folder).rglob("*")
    return {
        path.relative_to(ROOT).as_posix() for path in paths if path.suffix in (".py", ".sh", ".yml")
    }


@pytest.mark.slow
class TestBuilds:
    def test_wheel_holds_package_configs_and_tools_only(self, built):
        names = set(built[0].namelist())
        scripts = scripts_in("configs") | scripts_in("tools")
        scripts |= {"configs/probe.py", "model-index.yml"}
        inside = {name for name in names if name.startswith("mmvanilla/.mim/")}
        assert inside == {f"mmvanilla/.mim/{name}" for name in scripts}
        modules = {name for name in scripts_in("mmvanilla") if "/.mim/" not in name}
        others = {name for name in names - inside if ".dist-info/" not in name}
        assert others == modules | {"mmvanilla_command.py"}

    def test_sdist_holds_what_a_clone_does(self, built):
        with tarfile.open(built[1]) as archive:
            names = {name.split("/", 1)[-1] for name in archive.getnames()}
        files = {"LICENSE", "NOTICE", "CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile"}
        files |= {f"requirements/{path.name}" for path in LOCKS}
        assert files | scripts_in("tests") | scripts_in("projects") <= names

    def test_metadata_says_what_is_needed_whose_it_is_and_where_it_runs(self, built):
        (name,) = [name for name in built[0].namelist() if name.endswith("/METADATA")]
        lines = built[0].read(name).decode().splitlines()
        required = [line[15:] for line in lines if line.startswith("Requires-Dist: ")]
        # Naming a distribution of mmengine or mmcv would write it over the other one's files.
        always = {line for line in required if "extra ==" not in line}
        assert always == {"torch>=2.1", "numpy", "packaging"}
        assert {line.split()[-1] for line in required if "mmcv" in line} == {'"fork"', '"original"'}
        about = {f"Version: {mmvanilla.__version__}", "License-Expression: Apache-2.0"}
        about |= {"License-File: LICENSE", "License-File: NOTICE", "Requires-Python: >=3.10"}
        assert about <= set(lines)
        versions = {line.split(" :: ")[-1] for line in lines if ":: Python :: 3." in line}
        assert versions == PYTHONS

    def test_works_away_from_the_clone(self, built, tmp_path):
        site = tmp_path / "site"
        options = ("-q", "--no-deps", "--no-index", "--target", site)
        run(sys.executable, "-m", "pip", "install", *options, built[0].filename, cwd=tmp_path)
        where = {"PYTHONPATH": str(site)}
        text = "_base_ = __import__('mmvanilla').config_path('probe.py')\nadded = 2\n"
        (tmp_path / "theirs.py").write_text(text)
        script = """if True:
            import mmvanilla
            from mmengine.config import Config
            print(mmvanilla.__path__[0], Config.fromfile("theirs.py").to_dict())
        """
        output = run(sys.executable, "-c", script, cwd=tmp_path, **where).splitlines()[-1]
        assert output == f"{site / 'mmvanilla'} {dict(only_in_the_wheel=1, added=2)}"
        text = run(site / "bin" / "mmvanilla", "configs", "--help", cwd=tmp_path, **where)
        assert text.startswith("usage: mmvanilla configs [-h]")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["demo", "test", "test-original", "lint", "docs"])
def test_targets_set_up_by_pip_alone(target, tmp_path):
    # Whoever runs these tests by make may have given it arguments; this one would inherit them.
    inherited = ("MAKEFLAGS", "STACK", "VENV", "PYTEST_ARGS", "PYTHON", "OPS")
    plan = ["env", *(part for name in inherited for part in ("-u", name)), "make", "-n", target]
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    for name in ("Makefile", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    text = run(*plan, cwd=tmp_path)
    assert "-m venv .venv" in text and "MMCV_WITH_OPS=1" not in text
    stack = "original" if target == "test-original" else "fork"
    assert f"--requirement requirements/{stack}.txt" in text
    assert ("--requirement requirements/dev.txt" in text) == (target != "demo")
    assert ("MMCV_WITH_OPS=1" in run(*plan, "OPS=compiled", cwd=tmp_path)) == (target != "demo")
