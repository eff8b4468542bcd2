"""Test-time augmentation of instance segmentation, alone and in a test of the small Mask R-CNN."""

import pytest
import torch
from mmengine.config import ConfigDict

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model
from mmvanilla.apis.runners import build_test_runner
from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import ROOT, randomise, release

pytest.importorskip("mmdet")

from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.model import BaseModel  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from projects.mask_tta.mask_tta import MaskTTAModel  # noqa: E402

pytestmark = [pytest.mark.exhaustive, pytest.mark.toolbox("mmdet")]

SIZE = (6, 10)


class BaseDetector(BaseModel):
    def forward(self, *args, **kwargs):
        raise NotImplementedError


def view(box, score, direction=None):
    """What is found in one view of an image: x1 y1 x2 y2 of whole pixels, and the mask of it."""
    x1, y1, x2, y2 = box
    mask = torch.zeros(1, *SIZE, dtype=torch.bool)
    mask[0, y1:y2, x1:x2] = True
    meta = dict(ori_shape=SIZE, flip=direction is not None, flip_direction=direction)
    sample = DetDataSample(metainfo=meta)
    scores, labels = torch.tensor([score]), torch.zeros(1, dtype=torch.long)
    boxes = torch.tensor([box], dtype=torch.float32)
    sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=labels, masks=mask)
    return sample


@pytest.mark.parametrize(
    ("direction", "flipped"),
    [("horizontal", (7, 1, 9, 4)), ("vertical", (1, 2, 3, 5)), ("diagonal", (7, 2, 9, 5))],
)
def test_masks_are_flipped_back_with_their_boxes(direction, flipped):
    cfg = ConfigDict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=2)
    model = MaskTTAModel(tta_cfg=cfg, module=BaseDetector())
    box = (1, 1, 3, 4)
    views = [view(box, 0.5), view(flipped, 0.9, direction)]
    found = model.merge_preds([views])[0].pred_instances
    assert found.scores.tolist() == pytest.approx([0.9])  # one object: the better view's
    assert found.bboxes.tolist() == [list(box)]
    assert torch.equal(found.masks, view(box, 0.5).pred_instances.masks)


def test_a_detector_is_tested_with_views(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shapes("data/shapes", layouts=("coco",), num_train=1, num_val=2, image_size=64)
    config = str(ROOT / "projects/mask_tta/configs/maskrcnn_vanillanet_shapes.py")
    model = randomise(build_model(load_config(config)))
    torch.save(dict(state_dict=model.state_dict()), "weights.pth")
    few = {"test_dataloader.num_workers": 0, "test_dataloader.persistent_workers": False}
    few["model.test_cfg.rcnn.max_per_img"] = 2
    runner = build_test_runner(config, "weights.pth", tta=True, cfg_options=few)
    metrics = runner.test()
    release(runner)
    assert type(runner.model).__name__ == "MaskTTAModel"
    assert {"coco/bbox_mAP", "coco/segm_mAP"} <= set(metrics)
