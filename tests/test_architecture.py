"""Imports go down through the rooms only, files stay small, and docs/architecture.md is the map."""

import ast
import re
from pathlib import Path

import pytest

from tests.helpers import ROOT

PACKAGE = ROOT / "mmvanilla"
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if ".mim" not in path.parts]
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
(ARROWS,) = re.findall(r"^ +projects --- tools --- (.*)$", MAP, flags=re.MULTILINE)
FLOORS = {room: floor for floor, room in enumerate(reversed(ARROWS.split(" --- ")))}


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(str(node.module))
    return found


def test_the_map_has_every_room():
    assert set(FLOORS) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_import_goes_up(path):
    room = path.relative_to(PACKAGE).parts[0]
    for name in imports_of(path):
        assert name != "mmvanilla" or room not in FLOORS, f"{path} imports the whole package"
        if name.startswith("mmvanilla.") and room in FLOORS:
            other = name.split(".")[1]
            assert FLOORS.get(other, -1) <= FLOORS[room], f"{path} imports {name}"


@pytest.mark.parametrize("folder", ["mmvanilla", "tools", "configs", "tests"])
def test_nothing_imports_from_projects(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        if ".mim" not in path.parts and "projects" not in path.parts:
            assert not any(name.startswith("projects") for name in imports_of(path)), path


def test_files_have_fewer_than_300_lines():
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert [str(path) for path, size in sizes.items() if size >= 300] == []


def test_the_package_stays_small():
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES) <= 9_000
