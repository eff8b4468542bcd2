"""Pictures of predictions in each toolbox."""

import cv2
import numpy as np
import pytest
import torch

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model
from mmvanilla.apis.visualize import draw_predictions
from tests.helpers import randomise

CONFIGS = {
    "mmdet": "shapes/maskrcnn_vanillanet_shapes.py",
    "mmseg": "shapes/upernet_vanillanet_shapes.py",
    "mmpretrain": "shapes/vanillanet_shapes.py",
}


@pytest.mark.parametrize(
    "toolbox", [pytest.param(name, marks=pytest.mark.toolbox(name)) for name in CONFIGS]
)
def test_predictions_are_drawn_into_the_image(toolbox, tmp_path):
    config, weights, image = CONFIGS[toolbox], tmp_path / "model.pth", tmp_path / "image.jpg"
    torch.save(randomise(build_model(load_config(config))).state_dict(), weights)
    cv2.imwrite(str(image), np.full((96, 128, 3), 127, np.uint8))
    arguments = (config, str(weights), [image], tmp_path / "out")
    (written,) = draw_predictions(*arguments, score_threshold=0.0)
    assert written == tmp_path / "out" / "image.png"
    assert cv2.imread(str(written)).std() > 2  # of one colour before
    with pytest.raises(FileExistsError):
        draw_predictions(*arguments)
