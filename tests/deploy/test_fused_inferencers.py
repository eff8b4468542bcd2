"""The toolboxes' inferencers take a fused checkpoint as they take one of a training."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.visualization import Visualizer

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model
from mmvanilla.deploy.fuse_checkpoint import fuse_checkpoint
from tests.helpers import CONFIGS, randomise

CLASSES = dict(
    mmdet=("circle", "square", "triangle"),
    mmseg=("circle", "square", "triangle", "none"),
    mmpretrain=tuple("abcdef"),
)


def fuse(config, folder):
    """Save random weights as mmengine saves those of a training, and fuse them."""
    cfg = load_config(str(CONFIGS / "shapes" / config))
    options = {"model.test_cfg.rcnn.max_per_img": 5} if cfg.default_scope == "mmdet" else {}
    cfg.merge_from_dict(options)
    model = randomise(build_model(cfg)).eval()
    meta = dict(
        cfg=cfg.pretty_text,
        dataset_meta=dict(classes=CLASSES[cfg.default_scope], palette=[(9, 9, 9)] * 4),
    )
    trained, fused = folder / "epoch_1.pth", folder / "fused.pth"
    torch.save(dict(meta=meta, state_dict=model.state_dict()), trained)
    few = dict(cfg_options=options, sizes=[(64, 64)], measured_size=(32, 32))
    fuse_checkpoint(cfg.filename, str(trained), str(fused), **few)
    return trained, fused


@pytest.fixture(autouse=True)
def _forget_visualizers():
    """Let no later test draw with the visualizer of another toolbox, which has the same name."""
    yield
    for kind in (Visualizer, *Visualizer.__subclasses__()):
        kind._instance_dict.clear()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8))
    return str(path)


@pytest.mark.toolbox("mmdet")
def test_detection_from_weights_alone(tmp_path, image):
    from mmdet.apis import DetInferencer

    answers = []
    for weights in fuse("maskrcnn_vanillanet_shapes.py", tmp_path):
        inferencer = DetInferencer(weights=str(weights), device="cpu", show_progress=False)
        assert inferencer.visualizer.dataset_meta["classes"] == (
            CLASSES["mmdet"] if weights.name == "epoch_1.pth" else list(CLASSES["mmdet"])
        )
        answers.append(inferencer(image)["predictions"][0])
    assert inferencer.model.backbone.deploy
    expected, found = answers
    assert len(found["scores"]) > 0 and found["labels"] == expected["labels"]
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    np.testing.assert_allclose(found["bboxes"], expected["bboxes"], atol=1e-2)


@pytest.mark.toolbox("mmseg")
def test_segmentation_from_weights_alone(tmp_path, image):
    from mmseg.apis import MMSegInferencer

    answers = []
    for weights in fuse("upernet_vanillanet_shapes.py", tmp_path):
        inferencer = MMSegInferencer(None, weights=str(weights), device="cpu")
        answers.append(inferencer(image)["predictions"])
    assert inferencer.model.backbone.deploy
    expected, found = answers
    assert found.shape == (96, 128) and len(np.unique(expected)) > 1
    assert (found == expected).mean() > 0.999


@pytest.mark.toolbox("mmpretrain")
def test_classification_from_the_config_in_the_weights(tmp_path, image):
    """MMPretrain takes no weights alone, of no checkpoint, but a config in any form."""
    from mmpretrain.apis import ImageClassificationInferencer

    answers = []
    for weights in fuse("vanillanet_shapes.py", tmp_path):
        stored = torch.load(weights, weights_only=True)["meta"]["cfg"]
        inferencer = ImageClassificationInferencer(
            Config.fromstring(stored, ".py"), pretrained=str(weights), device="cpu"
        )
        answers.append(inferencer(image)[0])
    assert inferencer.model.backbone.deploy and inferencer.model.head.deploy
    expected, found = answers
    assert found["pred_class"] == expected["pred_class"]
    np.testing.assert_allclose(found["pred_scores"], expected["pred_scores"], atol=1e-5)
