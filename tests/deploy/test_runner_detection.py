"""Whole detectors on a device: what the runner finds is what DetInferencer finds."""

import json

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

pytest.importorskip("onnxruntime")
pytest.importorskip("mmcv._ext")
pytest.importorskip("mmdet.models")
pytest.importorskip("mmdeploy.apis")

from mmvanilla.apis.images import ImageReader  # noqa: E402
from mmvanilla.deploy import runner  # noqa: E402
from mmvanilla.deploy.runner import Predictor  # noqa: E402
from projects.mmdeploy.mmdeploy_export import export_detector  # noqa: E402
from tests.deploy.runner_models import META, save, write_images  # noqa: E402
from tests.deploy.test_mmdeploy_export import detector_config, spread, two_stage_config  # noqa: E402
from tests.helpers import randomise  # noqa: E402

pytestmark = pytest.mark.slow


def build(base, image):
    """A detector without ties, and its config."""
    cfg = detector_config() if base == "retinanet" else two_stage_config(base)
    cfg.visualizer = dict(type="DetLocalVisualizer")
    cfg.model.data_preprocessor.bgr_to_rgb = True
    cfg.test_dataloader.dataset.pipeline[1] = dict(type="Resize", scale=(96, 64))
    init_default_scope("mmdet")
    model = randomise(MODELS.build(cfg.model)).eval()
    inputs, samples = ImageReader(model, cfg).batch(image)
    if base == "retinanet":
        layers = [(model.bbox_head.retina_cls, 1.0), (model.bbox_head.retina_reg, 0.3)]
    else:
        head = model.roi_head.bbox_head
        layers = [(model.rpn_head.rpn_cls, 2.0), (model.rpn_head.rpn_reg, 0.3)]
        layers += [(head.fc_cls, 2.0), (head.fc_reg, 0.5)]
    for layer, scale in layers:
        spread(layer, lambda: model(inputs, samples, mode="predict"), scale)
    return cfg, model


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("base", ["retinanet", "mask-rcnn"])
def test_detections_are_those_of_the_inferencer(base, count, tmp_path):
    from mmdet.apis import DetInferencer

    images = write_images(tmp_path / "images", count)
    cfg, model = build(base, images[0])
    config, weights = save(cfg, model, tmp_path / "model")
    out = tmp_path / "det.onnx"
    report = export_detector(cfg, str(weights), out, images[:4], with_runner=True)
    assert report.runner_refuses is None
    assert (tmp_path / "predict.py").is_file()
    predictor = Predictor(out)
    inferencer = DetInferencer(str(config), weights=str(weights), device="cpu")
    compared, differing = 0, 0
    for image in images:
        (expected,) = inferencer(str(image))["predictions"]
        found = predictor(predictor.read(image))
        assert found["labels"].dtype.kind == "i" and predictor.name(0) == META["classes"][0]
        columns = [np.array(expected[key], np.float64) for key in ("labels", "scores")]
        boxes = np.array(expected["bboxes"]).reshape(-1, 4)
        theirs = np.column_stack([*columns, boxes / 100])
        ours = np.column_stack([found["labels"], found["scores"], found["bboxes"] / 100])
        # Where boxes overlap by just the threshold of NMS, rounding decides which one stays.
        apart = np.abs(theirs[:, None] - ours[None]).max(axis=2)
        partners = apart.argmin(axis=1)
        is_equal = apart.min(axis=1) <= 1e-3
        compared += len(theirs)
        differing += int((~is_equal).sum()) + abs(len(theirs) - len(ours))
        if base == "mask-rcnn":
            import pycocotools.mask as coco

            for index in np.flatnonzero(is_equal):
                mask = coco.decode(expected["masks"][index]).astype(bool)
                ours_of_it = found["masks"][partners[index]]
                assert mask.shape == ours_of_it.shape
                assert (mask != ours_of_it).mean() < 0.002
            assert json.dumps(runner.to_json(predictor, found))
    assert compared > 3 * count
    assert differing <= 0.01 * compared, (differing, compared)


def test_pictures_show_boxes_and_masks(tmp_path):
    """Drawing needs no detector: a predictor with results of its own."""
    predictor = Predictor.__new__(Predictor)
    predictor.settings = dict(palette=META["palette"])
    predictor.task, predictor.classes = "detection", META["classes"]
    mask = np.zeros((1, 40, 50), bool)
    mask[0, 10:20, 10:30] = True
    result = dict(
        labels=np.array([0]),
        scores=np.array([0.9], np.float32),
        bboxes=np.array([[10.0, 10.0, 29.0, 19.0]], np.float32),
        masks=mask,
    )
    image = np.full((40, 50, 3), 100, np.uint8)
    picture = runner.draw(predictor, image, result)
    assert picture[10, 20].tolist() == [0, 0, 255]  # the box, red as in the palette
    assert picture[15, 15].tolist() == [50, 50, 177]  # half the mask's colour
    assert picture[35, 45].tolist() == [100, 100, 100] and (image == 100).all()
    assert (runner.draw(predictor, image, result, score_threshold=0.95) == image).all()
    answer = runner.to_json(predictor, result)
    assert answer["names"] == [META["classes"][0]]
    assert answer["masks"] == [runner.encode_mask(mask[0])]
    assert torch.tensor(answer["bboxes"]).shape == (1, 4)
