"""The toolboxes' inferencers take a fused checkpoint as they take one of a training."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model
from mmvanilla.deploy.fuse_checkpoint import fuse_checkpoint
from tests.helpers import CONFIGS, randomise

CLASSES = ["circle", "square", "triangle", "none", "fifth", "sixth"]


def detect(weights, image):
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(weights=weights, device="cpu", show_progress=False)
    assert inferencer.visualizer.dataset_meta["classes"] == CLASSES[:3]
    (found,) = inferencer(image)["predictions"]
    return inferencer, found["labels"], [found["scores"], found["bboxes"]]


def segment(weights, image):
    from mmseg.apis import MMSegInferencer

    inferencer = MMSegInferencer(None, weights=weights, device="cpu")
    return inferencer, None, [inferencer(image)["predictions"]]


def classify(weights, image):
    """MMPretrain takes no weights alone, of no checkpoint, but a config in any form."""
    from mmpretrain.apis import ImageClassificationInferencer

    cfg = Config.fromstring(torch.load(weights, weights_only=True)["meta"]["cfg"], ".py")
    inferencer = ImageClassificationInferencer(cfg, pretrained=weights, device="cpu")
    (found,) = inferencer(image)
    return inferencer, found["pred_class"], [found["pred_scores"]]


@pytest.mark.parametrize(
    ("config", "classes", "infer"),
    [
        pytest.param("maskrcnn", 3, detect, marks=pytest.mark.toolbox("mmdet")),
        pytest.param("upernet", 4, segment, marks=pytest.mark.toolbox("mmseg")),
        pytest.param("", 6, classify, marks=pytest.mark.toolbox("mmpretrain")),
    ],
)
def test_weights_alone_give_what_the_training_gave(tmp_path, config, classes, infer):
    options = {"model.test_cfg.rcnn.max_per_img": 5} if config == "maskrcnn" else {}
    name = "_".join(filter(None, [config, "vanillanet_shapes.py"]))
    cfg = load_config(str(CONFIGS / "shapes" / name), options)
    model = randomise(build_model(cfg)).eval()
    data = dict(classes=CLASSES[:classes], palette=[(9, 9, 9)] * classes)
    meta = dict(cfg=cfg.pretty_text, dataset_meta=data)
    trained, fused = str(tmp_path / "epoch_1.pth"), str(tmp_path / "fused.pth")
    torch.save(dict(meta=meta, state_dict=model.state_dict()), trained)
    fuse_checkpoint(cfg.filename, trained, fused, cfg_options=options, sizes=[(64, 64)])
    image = str(tmp_path / "image.png")
    cv2.imwrite(image, np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8))
    _, expected_names, expected = infer(trained, image)
    inferencer, names, found = infer(fused, image)
    assert inferencer.model.backbone.deploy and names == expected_names
    for one, other in zip(expected, found, strict=True):
        assert np.size(one) > 0
        if infer is segment:
            assert len(np.unique(one)) > 1 and (np.asarray(other) == one).mean() > 0.999
        else:
            np.testing.assert_allclose(other, one, atol=1e-4 * max(1, np.max(np.abs(one))))
