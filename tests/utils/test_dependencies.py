"""What is said about a toolbox that is missing, too old, there twice, or broken."""

import re
import subprocess
import sys
from importlib import metadata
from unittest import mock

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


@pytest.mark.parametrize(
    ("stack", "command"),
    [
        ("fork", "onedl-mmdetection==3.5.1 onedl-mmsegmentation==1.4.2"),
        ("original", "mmdet==3.3.0 mmsegmentation==1.2.2"),
    ],
)
def test_a_missing_toolbox_comes_with_one_command(installed, monkeypatch, stack, command):
    installed.update(pins(stack))
    monkeypatch.setattr(dependencies, "has_toolbox", lambda name: name not in ("mmdet", "mmseg"))
    with pytest.raises(ImportError, match=f"mmdet and mmseg not.*`pip install {command}`"):
        dependencies.require("mmdet", "mmseg")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"onedl-mmdetection": "2.28.0"}, "onedl-mmdetection 2.28.0 does not work here"),
        ({"mmengine": "0.10.7"}, "pip uninstall -y onedl-mmengine mmengine"),
    ],
)
def test_a_wrong_release_and_two_of_one_toolbox_are_refused(installed, changed, words):
    installed.update(pins("fork") | changed)
    with pytest.raises(RuntimeError, match=words):
        dependencies.require("mmdet")


def test_a_toolbox_that_cannot_be_imported_is_one_line(installed, monkeypatch):
    installed.update(pins("original") | {"mmcv": "2.2.0"})
    fail = mock.Mock(side_effect=[None, None, AssertionError("MMCV==2.2.0 is used\nbut")])
    monkeypatch.setattr(dependencies.importlib, "import_module", fail)
    with pytest.raises(ImportError, match=r"mmdet 3.*: MMCV==2.2.0 is used; .* mmcv==2.1.0 mmdet"):
        dependencies.require("mmdet")


def test_importing_the_package_without_openmmlab_names_the_command():
    code = (
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('mmengine', 'mmcv') else real(name, *a)\n"
        "import mmvanilla"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    command = r"mmengine and mmcv not found; run `pip install (onedl-)?mmengine=="
    assert re.search(command, done.stderr)
