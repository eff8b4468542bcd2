"""The demo, from its data to the test of the fused model, on a few images and one epoch."""

import functools

import cv2
import pytest

from mmvanilla.__main__ import _load as load_file
from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import CONFIGS, ROOT

SHORT = """
_base_ = {base!r}
train_cfg = dict(max_epochs=1)
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=0)]
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
"""


@pytest.mark.exhaustive
@pytest.mark.toolbox("mmdet")
def test_the_fused_model_measures_what_the_trained_one_does(tmp_path, monkeypatch, capsys):
    demo = load_file(ROOT / "tools" / "demo.py")
    monkeypatch.chdir(tmp_path)
    few = functools.partial(make_shapes, num_train=6, num_val=3, image_size=64)
    monkeypatch.setattr(demo, "make_shapes", few)
    base = str(CONFIGS / "shapes" / "maskrcnn_vanillanet_shapes.py")
    (tmp_path / "short.py").write_text(SHORT.format(base=base))
    assert demo.main(["--config", "short.py", "--work-dir", "out"]) == 0
    said = capsys.readouterr().out.splitlines()
    drawn = [cv2.imread(str(path)) for path in (tmp_path / "out" / "pictures").iterdir()]
    assert len(drawn) == 3 and all(picture.std() > 10 for picture in drawn)
    (row,) = [line for line in said if line.lstrip("│┃ ").startswith("box mAP")]
    trained, fused = (float(cell) for cell in row.strip("│").split("│")[1:3])
    assert fused == pytest.approx(trained, abs=1e-3)
