"""The toolboxes beside the stacks: what is said where one is missing, old, or does not import."""

import re
from importlib import metadata
from types import SimpleNamespace

import pytest

from mmvanilla.apis.config import load_config
from projects.family import family
from projects.family.family import FAMILY, require_relative


@pytest.fixture
def machine(monkeypatch):
    """Return a function that lets the module see a machine with a stack and packages on it."""

    def pretend(stack, installed=(), failing=None):
        versions = dict(installed)

        def version(name):
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        def import_module(name):
            if failing:
                raise failing
            return SimpleNamespace()

        names = {
            name
            for name, relative in FAMILY.items()
            if any(distribution.name in versions for distribution in relative.distributions)
        }
        monkeypatch.setattr(family, "has_toolbox", lambda name: name in names)
        monkeypatch.setattr(family, "stack_in_use", lambda: stack)
        monkeypatch.setattr(family, "require", lambda *needs: None)
        known = metadata.PackageNotFoundError
        fake = SimpleNamespace(version=version, PackageNotFoundError=known)
        monkeypatch.setattr(family, "metadata", fake)
        monkeypatch.setattr(family, "importlib", SimpleNamespace(import_module=import_module))

    return pretend


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("stack", ["fork", "original"])
def test_a_missing_one_names_versions_and_the_command_of_the_stack(machine, name, stack):
    machine(stack)
    relative = FAMILY[name]
    with pytest.raises(ImportError, match=f"{name} is not installed") as caught:
        require_relative(name)
    message = str(caught.value)
    assert all(distribution.range in message for distribution in relative.distributions)
    if stack in relative.commands:
        assert f"`{relative.commands[stack]}`" in message
    else:
        assert "with the original stack alone (see docs/family.md)" in message


@pytest.mark.parametrize("name", FAMILY)
def test_the_tested_release_is_accepted_and_installed_by_the_command(machine, name):
    relative = FAMILY[name]
    commands = " ".join(relative.commands.values())
    for distribution in relative.distributions:
        assert distribution.covers(distribution.tested)
        machine("original", {distribution.name: distribution.tested})
        require_relative(name)
    assert any(f"{entry.name}=={entry.tested}" in commands for entry in relative.distributions)


def test_an_old_release_is_refused(machine):
    machine("fork", {"mmpose": "0.29.0"})
    with pytest.raises(RuntimeError, match=r"found mmpose 0\.29\.0, .* Install it by `pip"):
        require_relative("mmpose")


@pytest.mark.parametrize(
    "failing",
    [
        AssertionError("MMCV==2.3.6 is used but incompatible. Please install mmcv>=2.0.0rc4."),
        ValueError("numpy.dtype size changed, may indicate binary incompatibility"),
        ModuleNotFoundError("No module named 'xtcocotools'"),
    ],
)
def test_one_that_does_not_import_says_why(machine, failing):
    machine("fork", {"mmyolo": "0.6.0"}, failing)
    with pytest.raises(RuntimeError, match="mmyolo cannot be imported: ") as caught:
        require_relative("mmyolo")
    assert str(failing) in str(caught.value)


def test_an_unknown_one():
    with pytest.raises(ValueError, match="unknown toolbox 'mmocr'; choose from mmrotate"):
        require_relative("mmocr")


@pytest.mark.parametrize("name", FAMILY)
def test_a_config_of_a_missing_one_names_the_remedy(machine, tmp_path, name):
    machine("fork")
    config = tmp_path / "config.py"
    config.write_text(f"default_scope = {name!r}\nmodel = dict(type='X')\n")
    with pytest.raises(ImportError, match=f"{name} is not installed.*`pip install"):
        load_config(str(config))


def test_the_documented_commands_are_those_of_the_messages():
    from tests.helpers import ROOT

    page = ROOT / "docs" / "family.md"
    text = re.sub(r"\\\s*\n\s*", "", page.read_text(encoding="utf-8"))
    for relative in FAMILY.values():
        for command in relative.commands.values():
            assert command in text
