"""What the pages say about the package agrees with it, and their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import mmvanilla
from mmvanilla.models.archs import ARCHS
from mmvanilla.models.published import PUBLISHED
from mmvanilla.utils.dependencies import TOOLBOXES
from projects.benchmark.networks import PUBLISHED_TOP1
from tests.docs.snippets import PAGES
from tests.helpers import ROOT
from tests.models.test_vanillanet import PUBLISHED as COUNTED

DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def rows(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose first column has this title."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.is_file(), f"{page.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{page.name} links to {target}"


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"^ +- .+: (\S+\.(?:md|ipynb))$", text, flags=re.MULTILINE))
    there = {path.relative_to(DOCS).as_posix() for path in PAGES if path.name != "README.md"}
    there.discard("benchmarks_gpu.md")  # `make gpu-report` writes it
    assert there | {"tutorial.ipynb"} == listed


def test_the_first_screen_is_short():
    assert len(README.splitlines()) <= 130


@pytest.mark.parametrize(("page", "first_figure"), [("README.md", 1), ("docs/variants.md", 2)])
def test_the_table_of_variants_is_what_was_counted(page, first_figure):
    found = rows((ROOT / page).read_text(encoding="utf-8"), "`arch`")
    assert [row[0].strip('`"') for row in found] == list(ARCHS)
    for row in found:
        name = row[0].strip('`"')
        params, macs, training, top1 = (float(cell) for cell in row[first_figure:])
        assert (params, macs, training) == COUNTED[name]
        assert top1 == PUBLISHED_TOP1[name]


def test_the_channels_of_variants_are_those_of_the_package():
    for row in rows(read("variants.md"), "`arch`"):
        name = row[0].strip('`"')
        if "1.5" in name:
            assert row[1] == "1.5 × those of 13"
            assert ARCHS[name].dims == tuple(3 * dim // 2 for dim in ARCHS["13"].dims)
            continue
        dims = []
        for part in row[1].split():
            width, _, times = part.partition("×")
            dims += [int(width)] * int(times or 1)
        assert tuple(dims) == ARCHS[name].dims


def test_every_published_file_is_named():
    text = read("weights.md")
    assert set(re.findall(r"vanillanet://([\w.-]+)", text)) <= set(PUBLISHED)
    by_number = {str(number) for number in range(5, 14)}
    for name in set(PUBLISHED) - by_number:
        assert f"vanillanet://{name}`" in text, name


def test_the_tested_versions_are_those_of_the_lock_files():
    found = {row[0]: row[1:] for row in rows(read("setup.md"), "packages")}
    for names, cells in found.items():
        for index, name in enumerate(names.split(", ")):
            if name not in TOOLBOXES:
                continue
            for stack, cell in zip(("fork", "original"), cells, strict=True):
                version = cell.split(", ")[index].removeprefix("onedl ")
                tested = [entry.tested for entry in TOOLBOXES[name] if entry.stack == stack]
                assert version in tested, f"{name} of {stack}"


def test_the_figures_of_the_cpu_are_those_of_the_benchmarks():
    sys.path.insert(0, str(DOCS / "pictures"))
    try:
        from draw_latency import ACCURACY, SOURCE, read_table
    finally:
        sys.path.pop(0)
    measured = read_table(SOURCE.read_text(encoding="utf-8"))
    for name, fp32, int8, top1 in rows(read("deployment.md"), "ms"):
        row = measured[name]
        assert (float(fp32), float(int8)) == (row["onnxruntime"], row["int8"])
        assert float(top1) == row[ACCURACY]


@pytest.mark.parametrize("name", ["draw_network", "draw_latency"])
def test_pictures_can_be_drawn_again(name, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "picture.png"
    script = DOCS / "pictures" / f"{name}.py"
    subprocess.run([sys.executable, script, picture], check=True, capture_output=True)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    committed = script.with_name(f"{name.removeprefix('draw_')}.png")
    assert committed.is_file() and committed.stat().st_size < 500_000


def test_every_public_name_is_in_the_reference():
    # mkdocstrings lists what __all__ names, whatever that is.
    assert "::: mmvanilla\n" in (DOCS / "api" / "index.md").read_text(encoding="utf-8")
    assert all(hasattr(mmvanilla, name) for name in mmvanilla.__all__)


def test_the_site_is_strict():
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *given: given[1])
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=loader)
    assert set(settings["validation"]["links"].values()) == {"warn"}
    assert settings["theme"]["font"] is False
    assert Path(settings["docs_dir"]) == Path("docs")
