"""Test-time augmentation of instance segmentation, alone and in a test of the small Mask R-CNN."""

import pytest
import torch
from mmengine.config import ConfigDict

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model
from mmvanilla.apis.runners import build_test_runner, release
from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import ROOT, randomise

pytest.importorskip("mmdet")
pytestmark = [pytest.mark.exhaustive, pytest.mark.toolbox("mmdet")]

SIZE = (6, 10)


def view(boxes, scores, flip=False, direction=None):
    """The predictions for one view of an image; boxes are x1 y1 x2 y2 of whole pixels."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    sample = DetDataSample(
        metainfo=dict(ori_shape=SIZE, flip=flip, flip_direction=direction if flip else None)
    )
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.zeros(len(boxes), dtype=torch.long),
        masks=masks,
    )
    return sample


@pytest.fixture
def merge():
    from mmengine.model import BaseModel

    from projects.mask_tta.mask_tta import MaskTTAModel

    class Detector(BaseModel):
        def forward(self, inputs, data_samples=None, mode="tensor"):
            raise NotImplementedError

    cfg = ConfigDict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=2)
    model = MaskTTAModel(tta_cfg=cfg, module=Detector())
    return lambda *views: model.merge_preds([list(views)])[0].pred_instances


@pytest.mark.parametrize(
    ("direction", "flipped"),
    [("horizontal", (7, 1, 9, 4)), ("vertical", (1, 2, 3, 5)), ("diagonal", (7, 2, 9, 5))],
)
def test_masks_are_flipped_back_with_their_boxes(merge, direction, flipped):
    found = merge(view([(1, 1, 3, 4)], [0.5]), view([flipped], [0.9], True, direction))
    assert found.scores.tolist() == pytest.approx([0.9])  # one object: the better view's
    assert found.bboxes.tolist() == [[1, 1, 3, 4]]
    expected = torch.zeros(1, *SIZE, dtype=torch.bool)
    expected[0, 1:4, 1:3] = True
    assert torch.equal(found.masks, expected)


def test_every_object_keeps_its_own_mask_up_to_the_limit(merge):
    boxes = [(0, 0, 2, 2), (5, 0, 8, 3), (0, 4, 2, 6)]
    found = merge(view(boxes[:2], [0.3, 0.8]), view(boxes[2:], [0.6]))
    assert found.bboxes.int().tolist() == [list(boxes[1]), list(boxes[2])]
    assert found.masks.flatten(1).sum(1).tolist() == [9, 4]


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


def test_nothing_found_in_any_view(merge):
    assert len(merge(view([], []), view([], [], True, "horizontal"))) == 0
