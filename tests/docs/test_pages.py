"""What the pages say about the package agrees with it, and their links lead somewhere."""

from __future__ import annotations

import re

import pytest

from mmvanilla.models.archs import ARCHS
from tests.docs.blocks import PAGES, name_of
from tests.helpers import ROOT
from tests.models.test_vanillanet import PUBLISHED as COUNTED


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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path = (page.parent / target.partition("#")[0]).resolve()
            assert path.exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize(("page", "first_figure"), [("README.md", 1), ("docs/variants.md", 2)])
def test_the_table_of_variants_is_what_was_counted(page, first_figure):
    found = rows((ROOT / page).read_text(encoding="utf-8"), "`arch`")
    assert [row[0].strip('`"') for row in found] == list(ARCHS)
    for row in found:
        params, macs, training, _ = (float(cell) for cell in row[first_figure:])
        assert (params, macs, training) == COUNTED[row[0].strip('`"')]
