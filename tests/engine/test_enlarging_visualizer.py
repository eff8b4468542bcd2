"""Small images are drawn enlarged, with boxes and masks at their places; others as they were."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import VISUALIZERS, init_default_scope
from mmengine.structures import InstanceData, PixelData

pytest.importorskip("mmdet")
pytestmark = pytest.mark.toolbox("mmdet")

GREY = 100


@pytest.fixture
def draw(tmp_path):
    """Draw a sample into a grey image of 32×40 pixels, and return the picture in RGB."""
    from mmvanilla.engine.enlarging_visualizer import EnlargingVisualizer

    def draw(sample, min_side=64, size=(32, 40), **options):
        visualizer = EnlargingVisualizer(min_side=min_side, line_width=1, alpha=1.0)
        visualizer.dataset_meta = dict(classes=("a", "b"), palette=[(255, 0, 0), (0, 0, 255)])
        out = tmp_path / "drawn.png"
        image = np.full((*size, 3), GREY, np.uint8)
        visualizer.add_datasample("it", image, sample, out_file=str(out), **options)
        return cv2.imread(str(out))[..., ::-1]

    return draw


def instances(scores=None, as_masks=torch.from_numpy):
    """One object in the lower right quarter of the image."""
    masks = np.zeros((1, 32, 40), dtype=bool)
    masks[0, 20:28, 24:36] = True
    given = dict(
        bboxes=torch.tensor([[24.0, 20.0, 36.0, 28.0]]),
        labels=torch.tensor([1]),
        masks=as_masks(masks),
    )
    return InstanceData(**given, **({} if scores is None else dict(scores=torch.tensor(scores))))


def sample(**fields):
    from mmdet.structures import DetDataSample

    made = DetDataSample(metainfo=dict(img_id=0))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def place_of_colour(picture):
    """The first and last row and column of what is not grey and not written in black and white."""
    coloured = np.ptp(picture.astype(int), axis=2) > 60
    rows, columns = np.flatnonzero(coloured.any(1)), np.flatnonzero(coloured.any(0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def bitmaps(masks):
    from mmdet.structures.mask import BitmapMasks

    return BitmapMasks(masks.astype(np.uint8), *masks.shape[1:])


@pytest.mark.parametrize("as_masks", [torch.from_numpy, np.asarray, bitmaps])
def test_a_small_image_is_enlarged_with_its_objects(draw, as_masks):
    from mmdet.structures.bbox import HorizontalBoxes

    truth = instances(as_masks=as_masks)
    truth.bboxes = HorizontalBoxes(truth.bboxes)
    given = sample(gt_instances=truth, pred_instances=instances([0.9]))
    picture = draw(given, min_side=100)  # 4 times: the smallest whole number
    assert picture.shape == (128, 320, 3)  # both beside each other
    for half in (picture[:, :160], picture[:, 160:]):
        assert place_of_colour(half) == pytest.approx((80, 112, 96, 144), abs=3)
    assert given.pred_instances.bboxes.tolist() == [[24, 20, 36, 28]]
    assert given.pred_instances.masks.shape == (1, 32, 40)


def test_scores_below_the_threshold_are_left_out(draw):
    low = sample(pred_instances=instances([0.5]))
    assert (draw(low, draw_gt=False, pred_score_thr=0.6) == GREY).all()
    assert (draw(low, draw_gt=False, pred_score_thr=0.4) != GREY).any()


def test_without_objects_or_without_a_sample(draw):
    nothing = sample(pred_instances=instances([0.9])[:0], gt_instances=instances()[:0])
    for picture in (draw(nothing), draw(None)):
        assert picture.shape[0] == 64 and (picture == GREY).all()


def test_large_images_and_label_maps_are_drawn_as_they_are(draw):
    assert draw(sample(pred_instances=instances([0.9])), 32, draw_gt=False).shape == (32, 40, 3)
    labelled = sample(pred_sem_seg=PixelData(sem_seg=torch.zeros(1, 32, 40, dtype=torch.long)))
    assert draw(labelled, 64, draw_gt=False).shape == (32, 40, 3)


def test_configs_find_it_by_name():
    import mmvanilla.engine.enlarging_visualizer  # noqa: F401

    init_default_scope("mmdet")
    cfg = Config(dict(type="EnlargingVisualizer", name="found by name", min_side=300))
    assert VISUALIZERS.build(cfg).min_side == 300


@pytest.mark.parametrize("min_side", [0, -1, 2.5, True, "256"])
def test_sides_that_are_no_lengths_are_refused(min_side):
    from mmvanilla.engine.enlarging_visualizer import EnlargingVisualizer

    with pytest.raises(ValueError, match=r"whole number of at least 1, found"):
        EnlargingVisualizer(min_side=min_side)
