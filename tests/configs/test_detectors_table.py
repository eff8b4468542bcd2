"""Every line of the tables in docs/detectors.md, built and checked at a tiny width."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

import pytest
from mmengine.config import Config

from mmvanilla.apis.model import build_on_meta
from mmvanilla.checks.findings import OK
from mmvanilla.checks.model_check import check_model
from tests.checks.swaps import load
from tests.helpers import ROOT

TEXT = (ROOT / "docs" / "detectors.md").read_text(encoding="utf-8")
WIDTH = 64  # one of so many channels is left


class Row(NamedTuple):
    name: str
    toolbox: str
    config: str
    levels: tuple[int, ...]
    entries: tuple[tuple[str, object], ...]


def rows() -> list[Row]:
    found = []
    for toolbox, heading in (("mmdet", "## Detectors"), ("mmseg", "## Segmenters")):
        section = TEXT.split(heading)[1].split("\n## ")[0]
        for line in re.findall(r"^\| [^|]+ \| `[^|]+\.py` \|.*$", section, re.MULTILINE):
            name, config, levels, text = (cell.strip() for cell in line.strip("|").split("|"))
            pairs = [pair.split("=") for pair in re.findall(r"`([^`]+)`", text)]
            entries = tuple((key, ast.literal_eval(value)) for key, value in pairs)
            levels = ast.literal_eval(levels.strip("`"))
            found.append(Row(name, toolbox, config.strip("`"), levels, entries))
    return found


ROWS = rows()


def narrow(value):
    return (
        [item // WIDTH for item in value] if isinstance(value, list) else value and value // WIDTH
    )


def plugged(row: Row) -> Config:
    """The config of the row, with what the row says and nothing else."""
    cfg = load(row.toolbox, row.config)
    backbone = dict(type="VanillaNet", arch="6", width_mult=1 / WIDTH)
    cfg.model.backbone = dict(backbone, out_indices=row.levels)
    for key, value in row.entries:
        node = cfg.model
        *path, last = re.findall(r"\w+", key)
        for part in path:
            node = node[int(part)] if part.isdigit() else node[part]
        assert last in node or row.toolbox == "mmseg", f"{key} is not in the config"
        node[last] = narrow(value) if last.endswith("in_channels") else value
    return cfg


ASKED_FOR = "Faster R-CNN, Mask R-CNN, Cascade R-CNN, RetinaNet, FCOS, ATSS, RTMDet, YOLOX, DINO, \
Deformable DETR, Mask2Former, FCN, PSPNet, DeepLabV3+, UPerNet, SegFormer's head, Semantic FPN"
ALL = [pytest.param(row, marks=pytest.mark.toolbox(row.toolbox), id=row.name) for row in ROWS]


def test_the_tables_have_the_models_that_people_ask_for():
    assert len(ROWS) > 30
    assert set(ASKED_FOR.split(", ")) <= {row.name for row in ROWS}


@pytest.mark.parametrize("row", ALL)
def test_each_line_fits(row):
    cfg = plugged(row)
    found = check_model(cfg, build_on_meta(cfg))
    assert not [str(item) for item in found if item.status != OK]
