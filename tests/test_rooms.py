"""The rooms of the package, and that imports go down through them only."""

import ast
from pathlib import Path

import pytest

from tests.helpers import ROOT

PACKAGE = ROOT / "mmvanilla"
# From the top to the bottom; rooms of one line do not know each other.
FLOORS = (
    ("configs",),
    ("benchmark",),
    ("deploy",),
    ("analysis",),
    ("checks",),
    ("apis",),
    ("engine", "checkpoints"),
    ("models",),
    ("datasets",),
    ("utils",),
)
HEIGHT = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if ".mim" not in path.parts
}


def room_of(module: str) -> str:
    """The folder below the package that a module is in; empty for the package's own files."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or (len(parts) == 2 and parts[1] in HEIGHT) else ""


def imports_of(path: Path) -> set[str]:
    """What of this package a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    known = set()
    for name in found:
        while name.startswith("mmvanilla"):
            if name in MODULES or f"{name}.__init__" in MODULES:
                known.add(name)
                break
            name = name.rpartition(".")[0]
    return known


def test_every_folder_of_the_package_is_a_room_with_a_floor():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == set(HEIGHT)


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name)])
def test_no_import_goes_up_or_to_a_neighbour(module):
    room = room_of(module)
    for imported in imports_of(MODULES[module]):
        other = room_of(imported)
        if imported == "mmvanilla.version":
            continue
        assert other, f"{module} imports {imported}, which stands above all rooms"
        assert other == room or HEIGHT[other] < HEIGHT[room], f"{module} imports {imported}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {
        name: {other for other in imports_of(path) if room_of(other)}
        for name, path in MODULES.items()
        if room_of(name)
    }
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name not in done:
            for other in graph.get(name, ()):
                walk(other, (*trail, name))
            done.add(name)

    for name in graph:
        walk(name, ())


def test_the_tests_mirror_the_rooms():
    rooms = {path.name for path in (ROOT / "tests").iterdir() if (path / "__init__.py").is_file()}
    assert rooms == {
        *HEIGHT,
        "configs",
        "docs",
        "hostile",
        "properties",
        "requirements",
        "tools",
    }


@pytest.mark.parametrize(
    "module",
    [name for name, path in MODULES.items() if path.name != "__init__.py" and room_of(name)],
)
def test_the_map_of_the_rooms_has_every_file_as_it_describes_itself(module):
    path = MODULES[module]
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text, f"{module} has no docstring"
    line = f"- `{path.name}`: {text.splitlines()[0].replace('``', '`')}\n"
    assert line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
