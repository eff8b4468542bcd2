"""What is said about a toolbox that is missing, too old, there twice, or broken."""

import subprocess
import sys
from importlib import metadata

import pytest

from mmvanilla.utils import dependencies


@pytest.fixture
def installed(monkeypatch):
    """Let metadata tell of these versions only; every toolbox can be found and imported."""
    versions: dict[str, str] = {}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(dependencies.metadata, "version", version)
    monkeypatch.setattr(dependencies, "has_toolbox", lambda name: True)
    monkeypatch.setattr(dependencies.importlib, "import_module", lambda name: None)
    return versions


def pins(stack: str) -> dict[str, str]:
    entries = (entry for choice in dependencies.TOOLBOXES.values() for entry in choice)
    chosen = [e for e in entries if e.name.startswith("onedl-") == (stack == "fork")]
    return {entry.name: entry.tested for entry in chosen if entry.name != "mmcv-lite"}


@pytest.mark.parametrize("stack", ["fork", "original"])
def test_the_tested_stacks_are_accepted(installed, monkeypatch, stack):
    installed.update(pins(stack))
    imported = []
    monkeypatch.setattr(dependencies.importlib, "import_module", imported.append)
    dependencies.require(*dependencies.TOOLBOXES)
    assert set(imported) == set(dependencies.TOOLBOXES)


@pytest.mark.parametrize("stack", ["fork", "original"])
def test_a_missing_toolbox_comes_with_one_command(installed, monkeypatch, stack):
    installed.update(pins(stack))
    monkeypatch.setattr(dependencies, "has_toolbox", lambda name: name not in ("mmdet", "mmseg"))
    command = {
        "fork": "onedl-mmdetection==3.5.1 onedl-mmsegmentation==1.4.2",
        "original": "mmdet==3.3.0 mmsegmentation==1.2.2",
    }
    with pytest.raises(ImportError, match=f"mmdet and mmseg not.*`pip install {command[stack]}`"):
        dependencies.require("mmdet", "mmseg")


def test_a_release_that_does_not_work_is_named(installed):
    installed.update(pins("fork"), **{"onedl-mmdetection": "2.28.0"})
    with pytest.raises(RuntimeError, match="onedl-mmdetection 2.28.0 does not work here"):
        dependencies.require("mmdet")


def test_two_distributions_of_one_toolbox_are_refused(installed):
    installed.update(pins("fork"), mmengine="0.10.7")
    with pytest.raises(RuntimeError, match="pip uninstall -y onedl-mmengine mmengine"):
        dependencies.require("mmengine")


def test_a_toolbox_that_cannot_be_imported_says_why(installed, monkeypatch):
    installed.update(pins("fork"))

    def fail(name: str) -> None:
        if name == "mmseg":
            raise AssertionError("MMCV==2.9 is used but incompatible")

    monkeypatch.setattr(dependencies.importlib, "import_module", fail)
    with pytest.raises(ImportError, match="1.4.2 cannot be imported: MMCV==2.9"):
        dependencies.require("mmseg")


def test_importing_the_package_without_openmmlab_names_the_command():
    code = (
        "import sys, importlib.machinery as m; path = m.PathFinder.find_spec\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('mmengine', 'mmcv') else real(name, *a)\n"
        "import mmvanilla"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "mmengine and mmcv not found; run `pip install onedl-mmengine==" in done.stderr
