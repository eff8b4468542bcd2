"""Pictures of predictions and of a backbone's levels, in each toolbox."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmvanilla.apis.config import load_config
from mmvanilla.apis.images import ImageReader
from mmvanilla.apis.model import build_model, load_model
from mmvanilla.apis.visualize import draw_features, draw_predictions
from tests.helpers import randomise

CONFIGS = {
    "mmdet": "shapes/maskrcnn_vanillanet_shapes.py",
    "mmseg": "shapes/upernet_vanillanet_shapes.py",
    "mmpretrain": "shapes/vanillanet_shapes.py",
}


@pytest.fixture
def model(request, tmp_path):
    """A config, a checkpoint of random weights, and an image."""
    config = CONFIGS[request.param]
    network = randomise(build_model(load_config(config)))
    torch.save(dict(state_dict=network.state_dict()), tmp_path / "model.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "image.jpg"), pixels)
    return config, str(tmp_path / "model.pth"), tmp_path / "image.jpg"


@pytest.mark.toolbox("mmdet", "mmseg", "mmpretrain")
@pytest.mark.parametrize("model", CONFIGS, indirect=True)
def test_predictions_are_drawn_into_the_image(model, tmp_path):
    config, checkpoint, image = model
    options = dict(score_threshold=0.0)
    (written,) = draw_predictions(config, checkpoint, [image], tmp_path / "out", **options)
    assert written == tmp_path / "out" / "image.png"
    drawn, original = cv2.imread(str(written)), cv2.imread(str(image))
    assert drawn.shape != original.shape or (drawn != original).any()
    with pytest.raises(FileExistsError):
        draw_predictions(config, checkpoint, [image], tmp_path / "out")


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize("model", ["mmpretrain"], indirect=True)
def test_levels_are_drawn(model, tmp_path):
    config, checkpoint, image = model
    out = tmp_path / "levels.png"
    draw_features(config, checkpoint, image, out)
    drawn = cv2.imread(str(out))
    assert drawn.std() > 10  # not one colour
    assert drawn.shape == (64, 64, 3)  # one level, at the size of the tests
    link = tmp_path / "link.png"
    link.symlink_to(checkpoint)
    for name in (checkpoint, link, image):
        with pytest.raises(ValueError):
            draw_features(config, checkpoint, image, name, overwrite=True)
    assert load_model(load_config(config), checkpoint)


@pytest.mark.skipif(not hasattr(torch, "uint16"), reason="this torch refuses 16 bits")
@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_and_16_bits_are_drawn_in_their_own_contrast(channels, tmp_path):
    """The reader's pixels, on which levels are drawn, are not saturated."""
    steps = [dict(type="LoadImageFromFile", color_type="unchanged"), dict(type="PackInputs")]
    loader = dict(dataset=dict(pipeline=steps))
    cfg = Config(dict(default_scope="mmpretrain", test_dataloader=loader))
    model = nn.Module()
    model.data_preprocessor = MODELS.build(
        dict(type="mmpretrain.ClsDataPreprocessor", mean=[0.0] * channels, std=[1.0] * channels)
    )
    pixels = np.linspace(0, 65535, 32 * 32 * channels).reshape(32, 32, channels).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), pixels)
    _, shown = ImageReader(model, cfg).read(tmp_path / "deep.png")
    assert shown.shape == (32, 32, channels)
    assert shown.min() < 5 and shown.max() > 250 and 60 < shown.std() < 90
