"""The configs for toolboxes beside the three: read where their toolbox is installed."""

import re

import pytest

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_on_meta
from mmvanilla.models.fusion import count_fusable
from tests.helpers import ROOT

pytestmark = pytest.mark.exhaustive

TOOLBOXES = {
    "fcos3d_vanillanet_nuscenes": "mmdet3d",
    "pose_vanillanet_coco": "mmpose",
    "rotated_retinanet_vanillanet_dota": "mmrotate",
    "yolov8_vanillanet_coco": "mmyolo",
}
FOLDER = ROOT / "projects" / "family" / "configs"


@pytest.mark.parametrize("name", TOOLBOXES)
def test_the_model_is_built_with_pairs(name):
    text = (FOLDER / f"{name}.py").read_text()
    assert all((FOLDER / base).is_file() for base in re.findall(r'"(\.\./.*?)"', text))
    pytest.importorskip(TOOLBOXES[name])
    assert count_fusable(build_on_meta(load_config(str(FOLDER / f"{name}.py")))) > 0
