"""The demo, from its data to the one picture to open, on a few images and one epoch."""

import functools
import importlib
import sys
from argparse import Namespace
from types import SimpleNamespace

import cv2
import pytest
from mmengine.logging import MessageHub

from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import CONFIGS, ROOT

pytestmark = pytest.mark.toolbox("mmdet")

SHORT = """
_base_ = {base!r}
train_cfg = dict(max_epochs=1)
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=0)]
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
"""


@pytest.fixture
def demo(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools"), *sys.path])
    yield importlib.import_module("demo")
    sys.modules.pop("demo")


@pytest.mark.exhaustive
def test_it_ends_with_one_picture_to_open(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = functools.partial(make_shapes, num_train=6, num_val=3, image_size=64)
    monkeypatch.setattr(demo, "make_shapes", few)
    base = str(CONFIGS / "shapes" / "maskrcnn_vanillanet_shapes.py")
    (tmp_path / "short.py").write_text(SHORT.format(base=base))
    demo.demo(Namespace(config="short.py", work_dir="out"))
    said = capsys.readouterr().out.strip().splitlines()
    sheet = tmp_path / "out" / "pictures.png"
    assert said[-1].endswith(str(sheet)) and "first 3 of them" in said[-1]
    drawn = [cv2.imread(str(path)) for path in sorted((tmp_path / "out" / "pictures").iterdir())]
    assert [picture.shape for picture in drawn] == [(256, 512, 3)] * 3
    height, width = cv2.imread(str(sheet)).shape[:2]
    assert height > 2 * 256 and width > 2 * 512
    (row,) = [line for line in said if line.lstrip("│┃ ").startswith("box mAP")]
    trained, fused = (float(cell) for cell in row.strip("│").split("│")[1:3])
    assert fused == pytest.approx(trained, abs=1e-3)


def test_the_last_validation_counts_and_one_without_masks_is_refused(demo):
    hub = MessageHub("demo")
    runner = SimpleNamespace(message_hub=hub)
    for value in (0.1, 0.7):
        hub.update_scalar("val/coco/bbox_mAP", value)
    with pytest.raises(ValueError, match="did not measure coco/segm_mAP; take a config"):
        demo.measured_in(runner)
    hub.update_scalar("val/coco/segm_mAP", 0.6)
    assert demo.measured_in(runner) == {"coco/bbox_mAP": 0.7, "coco/segm_mAP": 0.6}
