"""Trained networks side by side: the whole way from configs to the table in a page."""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest

from projects.studies.page_tables import marks
from tests.idx_images import tiny_config, write_idx_images

PLAIN = """
_base_ = ["tiny.py"]
model = dict(
    backbone=dict(_delete_=True, type="ResNet_CIFAR", depth=18, in_channels=1, stem_channels=4,
                  base_channels=4),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(_delete_=True, type="LinearClsHead", num_classes=10, in_channels=32),
)
custom_hooks = []
"""


@pytest.fixture
def tool(run_tool, tmp_path):
    data = write_idx_images(tmp_path / "data")
    (tmp_path / "tiny.py").write_text(tiny_config(data))
    (tmp_path / "plain.py").write_text(PLAIN)
    return partial(run_tool, "compare_trainings")


@pytest.mark.slow
@pytest.mark.toolbox("mmpretrain")
def test_trains_fuses_times_and_writes_the_page(tool, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("\n".join(["Before.", *marks("mine"), "Behind."]))
    arguments = ("tiny.py", "plain.py", "--seeds", "0", "--jobs", "2", "--work-dir", "runs")
    arguments += ("--results", "kept/results.json")
    status, output = tool(*arguments, "--rounds", "2", "--write", str(page), "mine")
    assert status == 0, output.err
    head, _, ours, theirs = [line for line in output.out.splitlines() if line.startswith("|")]
    assert page.read_text() == "\n".join(
        ["Before.", marks("mine")[0], "", head, _, ours, theirs, "", marks("mine")[1], "Behind."]
    )
    titles = [title.strip() for title in head.strip("|").split("|")]
    rows = [
        dict(zip(titles, (cell.strip() for cell in row.strip("|").split("|")), strict=True))
        for row in (ours, theirs)
    ]
    assert [row["network"] for row in rows] == ["tiny", "plain"]
    for row in rows:
        assert row["seeds"] == "1" and 0 <= float(row["top-1, %"]) <= 100
        assert row["changed by fusing"] == "0.000" and float(row["latency, ms"]) > 0
    kept = json.loads((tmp_path / "kept" / "results.json").read_text())
    assert sorted(result["num_fused"] for result in kept.values()) == [0, 5]
    # Elsewhere the table is the same, without the latency that would need the networks.
    shutil.rmtree(tmp_path / "runs")
    status, output = tool(*arguments)
    assert status == 0, output.err
    assert "no latency in the table: the trained networks of some rows are not" in output.out
    assert output.out.count("(from before)") == 2 and "latency, ms" not in output.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.py"], "nothing.py"),
        (["tiny.py", "tiny.py"], "configs tiny given twice"),
        (["tiny.py", "--rounds", "1"], "--rounds must be 0 or at least 2, found 1"),
        (["tiny.py", "--write", "nowhere.md", "mine"], "no page at nowhere.md"),
        (["tiny.py", "--write", "tiny.py", "mine"], "tiny.py has no place for the table"),
        (["tiny.py", "--results", "tiny.py"], "does not hold the results of trainings"),
        (["tiny.py", "--seeds", "1", "1"], "seeds 1 given twice"),
    ],
)
def test_refuses_what_it_cannot_do_before_the_work(tool, tmp_path, arguments, message):
    status, output = tool(*arguments)
    assert status == 1 and output.err.startswith("error: ") and message in output.err
    assert not (tmp_path / "work_dirs").exists()
