import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import mmvanilla
from mmvanilla.utils.dependencies import TOOLBOXES
from tests.helpers import ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
MKDOCS = ".venv/bin/python -m mkdocs build --strict --quiet"
NEEDED = ("mmvanilla", "configs", "docker", "docs", "tools", "requirements", "tests")

if not LOCKS:
    pytest.skip("not in a clone", allow_module_level=True)

STACKS = runpy.run_path(str(ROOT / "requirements" / "common.py"))["STACKS"]


def pins(stem: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (ROOT / "requirements" / f"{stem}.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split(";")[0].strip().split("==")
            found.setdefault(name.lower(), []).append(version)
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_requirement_is_pinned_and_names_no_place(lock):
    for line in lock.read_text().splitlines():
        if line and not line.startswith("#"):
            pin = r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*"
            assert re.fullmatch(rf'{pin}(; [a-z_]+ [<>=]+ ".*")?', line), line
        assert "://" not in line


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_one_version_for_each_python(lock):
    for name, versions in pins(lock.stem).items():
        text = lock.read_text().lower()
        lines = [line for line in text.splitlines() if line.startswith(f"{name}==")]
        assert len(set(versions)) == len(versions) <= 2, name
        if len(versions) == 2:
            assert 'python_version >= "3.11"' in lines[0]
            assert 'python_version < "3.11"' in lines[1]


@pytest.mark.parametrize("stack", ["fork", "original"])
def test_stack_and_tools_pin_nothing_twice(stack):
    names = [name for stem in (stack, "dev", "no-deps") for name in pins(stem)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("stack", ["fork", "original"])
def test_pins_are_the_versions_that_error_messages_call_tested(stack):
    locked = pins(stack)
    for entries in TOOLBOXES.values():
        for entry in entries:
            if entry.stack == stack and entry.name != "mmcv-lite":
                assert locked[entry.name] == [entry.tested]
                assert entry.covers(entry.tested)


def test_the_two_opencv_of_the_fork_do_not_clash():
    locked = pins("fork")
    assert locked["opencv-python"] == locked["opencv-python-headless"]


def copy_of_the_project(target: Path) -> Path:
    """Copy what a clone has, so that building leaves nothing in the working tree."""
    clone = target / "clone"
    clone.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", ".mim", "*.egg-info")
    for name in NEEDED:
        shutil.copytree(ROOT / name, clone / name, ignore=unwanted)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy2(path, clone)
    return clone


def run(*command: object, cwd: Path, **variables: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **variables},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def pip(*arguments: object, cwd: Path) -> None:
    options = ("-q", "--no-deps", "--no-index", "--no-build-isolation")
    run(sys.executable, "-m", "pip", arguments[0], *options, *arguments[1:], cwd=cwd)


def scripts_in(folder: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sh", ".yml")
    }


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Return wheels built from a clone and from a source distribution of it."""
    pytest.importorskip("setuptools", minversion="77")
    base = tmp_path_factory.mktemp("packaging")
    clone = copy_of_the_project(base)
    (clone / "configs" / "_base_").mkdir(exist_ok=True)
    (clone / "configs" / "_base_" / "probe.py").write_text("only_in_the_wheel = 1\n")
    # An earlier build in the same clone must not leave its files in the next one.
    stale = clone / "build" / "lib" / "mmvanilla" / ".mim" / "configs" / "deleted.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    pip("wheel", "--wheel-dir", base / "from_clone", clone, cwd=base)
    backend = "import setuptools.build_meta as backend; backend.build_sdist('dist')"
    run(sys.executable, "-c", backend, cwd=clone)
    (archive,) = (clone / "dist").glob("*.tar.gz")
    pip("wheel", "--wheel-dir", base / "from_sdist", archive, cwd=base)
    names = ("from_clone", "from_sdist")
    return {name: next((base / name).glob("*.whl")) for name in names} | {"sdist": archive}


@pytest.mark.slow
class TestBuilds:
    @pytest.mark.parametrize("source", ["from_clone", "from_sdist"])
    def test_wheel_holds_package_configs_and_tools_only(self, wheels, source):
        names = set(zipfile.ZipFile(wheels[source]).namelist())
        scripts = scripts_in("configs") | scripts_in("tools")
        scripts |= {"configs/_base_/probe.py", "model-index.yml"}
        inside = {name for name in names if name.startswith("mmvanilla/.mim/")}
        assert inside == {f"mmvanilla/.mim/{name}" for name in scripts}
        modules = {name for name in scripts_in("mmvanilla") if "/.mim/" not in name}
        others = {name for name in names - inside if ".dist-info/" not in name}
        assert others == modules | {"mmvanilla_command.py"}

    def test_sdist_holds_the_tests_and_lock_files(self, wheels):
        with tarfile.open(wheels["sdist"]) as archive:
            names = {name.split("/", 1)[-1] for name in archive.getnames()}
        assert "Makefile" in names
        assert {f"requirements/{path.name}" for path in LOCKS} <= names
        about = {"LICENSE", "NOTICE", "CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md"}
        assert about | {"Dockerfile", "docker/Dockerfile.cuda"} <= names
        assert scripts_in("tests") <= names

    def test_metadata(self, wheels):
        archive = zipfile.ZipFile(wheels["from_clone"])
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        lines = archive.read(name).decode().splitlines()
        assert f"Version: {mmvanilla.__version__}" in lines
        assert "Requires-Python: >=3.10" in lines
        required = [line for line in lines if line.startswith("Requires-Dist:")]
        always = {line.split(": ")[1] for line in required if "extra ==" not in line}
        # Naming one distribution of mmengine or mmcv would overwrite the other one's files.
        assert always == {"torch>=2.1", "numpy", "packaging"}
        # pip would build it without torch in sight, that is, without its ops: wanted in one extra.
        mmcv = [line for line in required if re.search(r": (onedl-)?mmcv\b(?!-lite)", line)]
        assert all('extra == "lite"' in line for line in mmcv)
        assert len(mmcv) == 1
        # mmcv-lite would bring the original mmengine.
        lite = {re.split("[<>=!]", line.split(": ")[1])[0] for line in required if '"lite"' in line}
        assert lite == {"onedl-mmengine", "onedl-mmcv"}

    def test_metadata_says_whose_it_is_and_where_it_runs(self, wheels):
        archive = zipfile.ZipFile(wheels["from_sdist"])
        names = archive.namelist()
        (name,) = [name for name in names if name.endswith("/METADATA")]
        lines = archive.read(name).decode().splitlines()
        assert "License-Expression: Apache-2.0" in lines
        for file in ("LICENSE", "NOTICE"):
            assert f"License-File: {file}" in lines
            (path,) = [name for name in names if name.endswith(f".dist-info/licenses/{file}")]
            assert archive.read(path) == (ROOT / file).read_bytes()
        assert "Project-URL: Paper, https://arxiv.org/abs/2305.12972" in lines
        (keywords,) = [line for line in lines if line.startswith("Keywords: ")]
        assert {"VanillaNet", "OpenMMLab"} <= set(keywords.split(": ")[1].split(","))
        pythons = {line.split(" :: ")[-1] for line in lines if "Programming Language" in line}
        assert pythons == {"3"} | {f"{major}.{minor}" for major, minor in STACKS["fork"][2]}

    def test_works_away_from_the_clone(self, wheels, tmp_path):
        site = tmp_path / "site"
        pip("install", "--target", site, wheels["from_clone"], cwd=tmp_path)
        where = {"PYTHONPATH": str(site)}
        (tmp_path / "theirs.py").write_text(
            "_base_ = __import__('mmvanilla').config_path('_base_/probe.py')\nadded = 2\n"
        )
        script = """if True:
            import json, mmvanilla
            from mmengine.config import Config
            config = Config.fromfile("theirs.py").to_dict()
            path = mmvanilla.config_path("_base_/probe.py")
            print(json.dumps([mmvanilla.__file__, path, config]))
        """
        output = run(sys.executable, "-c", script, cwd=tmp_path, **where)
        package = site / "mmvanilla"
        assert json.loads(output.splitlines()[-1]) == [
            str(package / "__init__.py"),
            str(package / ".mim" / "configs" / "_base_" / "probe.py"),
            {"only_in_the_wheel": 1, "added": 2},
        ]
        (tmp_path / "pure.py").write_text(
            "from mmengine.config import read_base\nwith read_base():\n"
            "    from mmvanilla.configs.shapes_runtime import *\n"
        )
        script = """if True:
            import mmvanilla
            from mmengine.config import Config
            from mmengine.config.utils import _get_cfg_metainfo
            from mmengine.utils import get_installed_path
            print(Config.fromfile("pure.py").train_cfg.max_epochs)
            folder = get_installed_path("mmvanilla")
            print(_get_cfg_metainfo(folder, "imagenet/vanillanet9_in1k.py")["Name"])
        """
        output = run(sys.executable, "-c", script, cwd=tmp_path, **where)
        assert output.splitlines()[-2:] == ["3", "vanillanet-9_in1k"]
        listing = run(site / "bin" / "mmvanilla", cwd=tmp_path, **where)
        tools = {path.stem for path in (ROOT / "tools").glob("[!_]*.py")}
        assert tools <= set(listing.split())
        for tool in sorted(tools):
            if "argparse" in (ROOT / "tools" / f"{tool}.py").read_text():
                text = run(site / "bin" / "mmvanilla", tool, "--help", cwd=tmp_path, **where)
                assert text.startswith(f"usage: mmvanilla {tool} [-h]")
                break


class TestAbout:
    """The files that say whose the project is, how to cite it and how to take part."""

    def test_licence_is_whole_and_the_notice_names_the_authors_of_the_method(self):
        text = (ROOT / "LICENSE").read_text()
        assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
        assert "9. Accepting Warranty or Additional Liability." in text
        assert "END OF TERMS AND CONDITIONS" in text
        notice = (ROOT / "NOTICE").read_text()
        for part in ("arXiv 2305.12972", "huawei-noah/VanillaNet", "MIT License", "Hanting Chen"):
            assert part in notice

    def test_citation_names_this_version_and_the_paper(self):
        cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
        assert {"cff-version", "message", "title", "authors"} <= set(cff)  # what the format needs
        assert cff["version"] == mmvanilla.__version__
        assert cff["license"] == "Apache-2.0"
        paper = cff["preferred-citation"]
        assert paper["url"].endswith("2305.12972")
        assert [author["family-names"] for author in paper["authors"]] == [
            "Chen",
            "Wang",
            "Guo",
            "Tao",
        ]

    def test_manifest_names_what_exists(self):
        for line in (ROOT / "MANIFEST.in").read_text().splitlines():
            command, *names = line.split()
            if command == "include":
                assert [name for name in names if not (ROOT / name).is_file()] == []
            elif command == "recursive-include":
                folder, *patterns = names
                for pattern in patterns:
                    assert any((ROOT / folder).rglob(pattern)), line

    def test_contributing_names_targets_and_files_that_exist(self):
        text = (ROOT / "CONTRIBUTING.md").read_text()
        targets = set(re.findall(r"`(?:make) ([a-z][a-z-]*)", text))
        makefile = (ROOT / "Makefile").read_text()
        (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
        assert targets and targets <= set(phony.split())
        paths = re.findall(r"`((?:mmvanilla|requirements|tests|docs)/[\w./-]*|[A-Z]+\.\w+)`", text)
        assert "mmvanilla/version.py" in paths
        assert [path for path in paths if not (ROOT / path).exists()] == []

    @pytest.mark.parametrize("name", ["Dockerfile", "docker/Dockerfile.cuda"])
    def test_images_set_up_as_make_does_and_are_marked_as_not_run(self, name):
        text = (ROOT / name).read_text()
        assert "Not run here" in text
        assert re.search(r"^RUN .*\bmake env VENV=/opt/venv\b", text, flags=re.MULTILINE)
        assert "ENV PATH=/opt/venv/bin:$PATH" in text
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        assert {".git", ".venv*", "work_dirs", "data"} <= set(ignored)

    def test_image_has_a_python_that_fits(self):
        text = (ROOT / "Dockerfile").read_text()
        (version,) = re.findall(r"^FROM python:(\d)\.(\d+)-", text, flags=re.MULTILINE)
        assert tuple(map(int, version)) in STACKS["fork"][2]

    def test_cuda_image_has_the_cuda_of_the_pinned_torch(self):
        text = (ROOT / "docker" / "Dockerfile.cuda").read_text()
        versions = set(re.findall(r"^FROM nvidia/cuda:([\d.]+)-", text, flags=re.MULTILINE))
        torch = pytest.importorskip("torch")
        if torch.__version__.split("+")[0] != pins("fork")["torch"][0] or not torch.version.cuda:
            pytest.skip("needs the torch that requirements/fork.txt pins")
        assert {version.rpartition(".")[0] for version in versions} == {torch.version.cuda}


class TestCommands:
    def test_continuous_integration_runs_the_test_command_and_the_checks(self):
        script = ROOT / ".ci" / "run"
        assert os.access(script, os.X_OK)
        commands = script.read_text().splitlines()
        assert "set -euo pipefail" in commands
        assert "make test" in commands
        assert "make lint" in commands
        assert "make docs" in commands
        subprocess.run(["bash", "-n", script], check=True)

    @pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
    def test_help_names_every_target(self):
        makefile = (ROOT / "Makefile").read_text()
        (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
        text = run("make", "--no-print-directory", "help", cwd=ROOT)
        assert set(phony.split()) - {"help"} <= set(re.findall(r"^make (\S+)", text, re.MULTILINE))

    @pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
    @pytest.mark.parametrize(
        ("target", "stack", "command"),
        [
            ("test", "fork .venv", ".venv/bin/python -m pytest"),
            ("demo", "fork .venv", ".venv/bin/python tools/demo.py"),
            ("docs", "fork .venv", f"NO_MKDOCS_2_WARNING=1 {MKDOCS}"),
            ("lint", "fork .venv", ".venv/bin/python -m mypy mmvanilla"),
            ("test-original", "original .venv-original", ".venv-original/bin/python -m pytest"),
        ],
    )
    def test_targets_set_up_first(self, target, stack, command):
        # Whoever runs these tests by make may have given it arguments; this one would inherit them.
        inherited = ("MAKEFLAGS", "STACK", "VENV", "PYTEST_ARGS", "PYTHON")
        forget = [part for name in inherited for part in ("-u", name)]
        text = run("env", *forget, "make", "-n", target, cwd=ROOT)
        lines = [line.strip() for line in text.splitlines()]
        set_up = [line for line in lines if f"requirements/install.py {stack}" in line]
        assert len(set_up) == 1
        assert lines.index(set_up[0]) < lines.index(command)
