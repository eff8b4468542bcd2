import importlib
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mmvanilla.utils import dependencies

FORK = {
    "torch": "2.10.0",
    "torchvision": "0.25.0",
    "setuptools": "81.0.0",
    "onedl-mmengine": "0.10.12",
    "onedl-mmcv": "2.3.6",
    "onedl-mmdetection": "3.5.1",
    "onedl-mmsegmentation": "1.4.2",
    "onedl-mmpretrain": "1.3.6",
}
ORIGINAL = {
    "torch": "2.1.2+cu121",
    "torchvision": "0.16.2",
    "setuptools": "80.9.0",
    "mmengine": "0.10.7",
    "mmcv": "2.1.0",
    "mmdet": "3.3.0",
    "mmsegmentation": "1.2.2",
    "mmpretrain": "1.2.0",
}
ALL = ("mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain")


@pytest.fixture
def machine(monkeypatch):
    """Return a function that lets the module see a machine with the given packages on it."""

    def pretend(installed, ops_error="", missing=(), failing=None):
        names = {
            name
            for name, entries in dependencies.TOOLBOXES.items()
            if any(entry.name in installed for entry in entries)
        }

        def import_module(name):
            if name == "mmcv._ext" and ops_error:
                raise ImportError(ops_error)
            if failing and name in failing:
                raise failing[name]
            return SimpleNamespace(__version__="0.0.1")

        monkeypatch.setattr(dependencies, "_version_of", installed.get)
        monkeypatch.setattr(dependencies, "has_toolbox", lambda name: name in names)
        monkeypatch.setattr(dependencies, "_importable", lambda module: module not in missing)
        monkeypatch.setattr(
            dependencies, "importlib", SimpleNamespace(import_module=import_module), raising=True
        )
        monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)

    return pretend


def without(installed, *names):
    return {name: version for name, version in installed.items() if name not in names}


@pytest.mark.parametrize("installed", [FORK, ORIGINAL], ids=["fork", "original"])
def test_both_tested_stacks_are_accepted(machine, installed):
    machine(installed)
    assert dependencies.require(*ALL) is None


def test_what_is_installed_here_is_accepted():
    assert dependencies.require("mmengine", "mmcv") is None
    assert dependencies.require(*[name for name in ALL if dependencies.has_toolbox(name)]) is None


@pytest.mark.parametrize("name", ["mmcls", "torch", "MMDET", ""])
def test_unknown_toolbox(name):
    with pytest.raises(ValueError, match="unknown toolbox .* choose from mmengine"):
        dependencies.require(name)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("stack", [FORK, ORIGINAL], ids=["fork", "original"])
def test_missing_toolbox_names_versions_and_the_command_of_its_own_stack(machine, stack, name):
    entries = dependencies.TOOLBOXES[name]
    machine(without(stack, *[entry.name for entry in entries]))
    here = next(entry for entry in entries if entry.name in stack)
    with pytest.raises(ImportError) as caught:
        dependencies.require(name)
    message = str(caught.value)
    assert f"{name} is not installed" in message
    assert all(entry.range in message for entry in entries)
    assert re.search(rf"`[^`]*pip install [^`]*{here.name}=={re.escape(here.tested)}`", message)


def test_on_an_empty_machine_the_fork_is_recommended(machine):
    machine({})
    with pytest.raises(ImportError, match="`pip install onedl-mmengine==0.10.12`"):
        dependencies.require("mmengine")


@pytest.mark.parametrize(
    ("installed", "command"),
    [
        ({}, "pip install --no-cache-dir onedl-mmengine==0.10.12 onedl-mmcv==2.3.6"),
        ({"mmdet": "3.3.0"}, "pip install 'setuptools<81' mmengine==0.10.7 mmcv-lite==2.1.0"),
    ],
)
def test_two_missing_toolboxes_take_one_command_without_a_compiler(machine, installed, command):
    machine(installed)
    with pytest.raises(ImportError) as caught:
        dependencies.require("mmengine", "mmcv")
    message = str(caught.value)
    assert message.startswith("mmengine and mmcv are not installed. ")
    assert re.findall("`([^`]*)`", message) == [command]
    assert "only mmdet needs them" in message


def test_mmcv_lite_decides_for_no_stack(machine):
    """It goes with the fork's mmengine too, and the original one reads nothing in a new torch."""
    machine({"mmcv-lite": "2.1.0", "torch": "2.13.0"})
    with pytest.raises(ImportError, match="^mmengine is not .*`pip install onedl-mmengine=="):
        dependencies.require("mmengine", "mmcv")


@pytest.mark.parametrize(
    ("stack", "command"),
    [
        (FORK, "pip install --no-cache-dir onedl-mmcv==2.3.6"),
        (ORIGINAL, "pip install 'setuptools<81' mmcv-lite==2.1.0"),
    ],
)
def test_mmcv_without_ops_does_not_bring_the_other_stack(machine, stack, command):
    machine(without(stack, "onedl-mmcv", "mmcv"))
    with pytest.raises(ImportError, match=f"mmcv without compiled ops is enough.*`{command}`"):
        dependencies.require("mmcv")


def test_missing_mmcv_command_lets_the_build_see_torch_and_keeps_out_of_the_cache(machine):
    machine(without(FORK, "onedl-mmcv"))
    with pytest.raises(ImportError) as caught:
        dependencies.require("mmcv")
    assert "MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir" in str(caught.value)


@pytest.mark.parametrize(
    ("package", "version", "name"),
    [
        ("onedl-mmengine", "0.10.7", "mmengine"),
        ("onedl-mmcv", "2.4.0", "mmcv"),
        ("onedl-mmdetection", "4.0.0", "mmdet"),
        ("onedl-mmsegmentation", "1.2.0", "mmseg"),
        ("onedl-mmpretrain", "0.9", "mmpretrain"),
    ],
)
def test_version_out_of_range(machine, package, version, name):
    machine({**FORK, package: version})
    with pytest.raises(RuntimeError) as caught:
        dependencies.require(name)
    message = str(caught.value)
    assert f"found {package} {version}" in message
    assert all(entry.range in message for entry in dependencies.TOOLBOXES[name])
    assert "pip install" in message


def test_old_mmcv_is_noticed_when_a_toolbox_is_asked_for(machine):
    machine({**ORIGINAL, "mmcv": "1.7.2"})
    with pytest.raises(RuntimeError, match=r"found mmcv 1\.7\.2"):
        dependencies.require("mmdet")


@pytest.mark.parametrize("name", ["mmdet", "mmseg"])
@pytest.mark.parametrize("package", ["mmcv", "onedl-mmcv"])
def test_mmcv_too_new_for_the_original_toolboxes(machine, name, package):
    version = {"mmcv": "2.2.0", "onedl-mmcv": "2.3.6"}[package]
    machine({**without(ORIGINAL, "mmcv"), package: version})
    with pytest.raises(RuntimeError) as caught:
        dependencies.require(name)
    message = str(caught.value)
    assert f"found {package} {version} with" in message
    assert "<2.2.0 (tested: 2.1.0)" in message
    assert f"`pip uninstall -y {package}`" in message


def test_mmcv_2_2_is_fine_without_these_toolboxes_and_with_mmpretrain(machine):
    machine({**ORIGINAL, "mmcv": "2.2.0"})
    assert dependencies.require("mmengine", "mmcv", "mmpretrain") is None


def test_mmcv_lite_is_enough_but_for_mmdet(machine):
    machine(
        {**without(ORIGINAL, "mmcv"), "mmcv-lite": "2.1.0"},
        ops_error="No module named 'mmcv._ext'",
    )
    dependencies.require("mmengine", "mmcv", "mmseg", "mmpretrain")
    with pytest.raises(RuntimeError) as caught:
        dependencies.require("mmdet")
    assert "found mmcv-lite 2.1.0 without compiled ops" in str(caught.value)
    assert "pip uninstall -y mmcv-lite" in str(caught.value)


def test_ops_compiled_for_another_torch(machine):
    machine(FORK, ops_error="_ext.so: undefined symbol: _ZN3c10\nmore")
    with pytest.raises(RuntimeError, match="undefined symbol: _ZN3c10.*--no-cache-dir"):
        dependencies.require("mmdet")


def test_the_same_import_name_installed_twice(machine):
    machine({**FORK, "mmcv-lite": "2.1.0"})
    with pytest.raises(RuntimeError, match="onedl-mmcv 2.3.6 and mmcv-lite 2.1.0.*uninstall -y"):
        dependencies.require("mmcv")


@pytest.mark.parametrize("torch_version", ["2.6.0", "2.10.0+cpu", "3.0"])
def test_original_mmengine_with_a_torch_that_refuses_its_checkpoints(
    machine, monkeypatch, torch_version
):
    machine({**ORIGINAL, "torch": torch_version})
    with pytest.raises(RuntimeError) as caught:
        dependencies.require("mmengine")
    message = str(caught.value)
    assert "found mmengine 0.10.7" in message
    assert torch_version in message
    assert "pip install onedl-mmengine==0.10.12" in message
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    dependencies.require("mmengine")


def test_last_torch_that_reads_them(machine):
    machine({**ORIGINAL, "torch": "2.5.1"})
    assert dependencies.require("mmengine") is None


def test_setuptools_without_pkg_resources(machine):
    machine({**ORIGINAL, "setuptools": "82.0.0"}, missing=["pkg_resources"])
    with pytest.raises(RuntimeError, match=r"setuptools 82\.0\.0.*pip install 'setuptools<81'"):
        dependencies.require("mmengine")
    machine({**FORK, "setuptools": "82.0.0"}, missing=["pkg_resources"])
    dependencies.require("mmengine")  # the fork does without


def test_ftfy_is_missing(machine):
    machine(ORIGINAL, missing=["ftfy"])
    with pytest.raises(ImportError, match="mmsegmentation 1.2.2 needs ftfy.*`pip install ftfy`"):
        dependencies.require("mmseg")


@pytest.mark.parametrize(
    ("name", "failing"),
    [
        ("mmdet", {"mmdet": AssertionError("MMEngine==2.0 is used but incompatible.")}),
        ("mmseg", {"mmseg": ImportError("no such thing")}),
        ("mmpretrain", {"torchvision": RuntimeError("operator torchvision::nms does not exist")}),
    ],
)
def test_whatever_a_toolbox_trips_over_becomes_one_message(machine, name, failing):
    machine(FORK, failing=failing)
    with pytest.raises(RuntimeError) as caught:
        dependencies.require(name)
    (cause,) = failing.values()
    message = str(caught.value)
    assert caught.value.__cause__ is cause
    assert str(cause) in message
    assert "torch 2.10.0" in message
    assert "torchvision 0.25.0" in message
    assert "pip install" in message


def test_source_tree_without_metadata_is_judged_by_its_version(machine, monkeypatch):
    machine(FORK)
    monkeypatch.setattr(dependencies, "_version_of", without(FORK, "onedl-mmcv").get)
    with pytest.raises(RuntimeError, match=r"found mmcv 0\.0\.1"):
        dependencies.require("mmcv")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.0", True),
        ("2.1.2+cu121", True),
        ("2.0.0rc4", True),
        ("2.3.0rc1", False),
        ("2.3.0", False),
        ("1.9.9", False),
        ("unknown", False),
    ],
)
def test_which_releases_a_range_covers(version, expected):
    entry = dependencies.Distribution("mmcv", "original", "2.0.0", "2.3.0", "2.1.0")
    assert entry.covers(version) == expected


def test_a_machine_without_packaging_is_told_what_brings_it(machine, monkeypatch):
    """What reads versions comes with mmengine, so its absence must not hide mmengine's."""
    machine({})
    for name in ("packaging", "packaging.specifiers", "packaging.version"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="`pip install .*onedl-mmengine==0.10.12 "):
        dependencies.require("mmengine", "mmcv")


def test_has_toolbox_does_not_take_a_bare_folder_for_one(tmp_path, monkeypatch):
    (tmp_path / "mmvanilla_no_such_toolbox").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert not dependencies.has_toolbox("mmvanilla_no_such_toolbox")
    assert not dependencies.has_toolbox("mmvanilla_nowhere")
    assert dependencies.has_toolbox("mmvanilla")


def test_importing_the_package_imports_no_toolbox():
    code = (
        "import sys, mmvanilla; print([name for name in ('mmdet', 'mmseg', 'mmpretrain', "
        "'torchvision', 'mmcv._ext') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
