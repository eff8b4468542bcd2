"""The runner reads images as the toolboxes do: the same inputs, bit by bit."""

import json

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, init_default_scope

pytest.importorskip("mmpretrain.models")

from mmvanilla.deploy import runner, runner_metadata  # noqa: E402
from mmvanilla.deploy.runner import Predictor  # noqa: E402
from mmvanilla.deploy.runner_steps import prepare_image  # noqa: E402
from mmvanilla.deploy.runner_tasks import as_picture  # noqa: E402
from tests.deploy.runner_models import (  # noqa: E402
    EDGE,
    META,
    STEPS,
    classifier_config,
    write_images,
    write_odd_images,
)

KNOWN = dict(version=runner.VERSION, task="classification", classes=META["classes"], palette=[])
RESIZE = dict(type="Resize", scale=(90, 70))
PIPELINES = {
    "pillow bicubic, crop": STEPS,
    "crop larger than the image": [dict(type="CenterCrop", crop_size=(100, 50))],
    "flattened": [dict(RESIZE, scale=(150, 36), backend="pillow")],
    "long edge": [dict(EDGE, edge="long", interpolation="lanczos")],
    "width": [dict(EDGE, edge="width", interpolation="bilinear", scale=66)],
    "height": [dict(EDGE, edge="height", interpolation="box", scale=200)],
    "keep ratio": [dict(RESIZE, keep_ratio=True)],
    **{way: [dict(RESIZE, interpolation=way)] for way in ("area", "bicubic", "nearest", "lanczos")},
    "factor": [dict(type="Resize", scale_factor=1.37)],
    "padded to a size": [RESIZE, dict(type="Pad", size=(128, 100), pad_val=114)],
    "padded to a square": [RESIZE, dict(type="Pad", pad_to_square=True)],
    "padded to a multiple": [dict(type="Pad", size_divisor=32, pad_val=dict(img=(1, 2, 3)))],
}


def assert_same_inputs(cfg, images):
    """The runner makes the inputs of the config's own pipeline and data preprocessor."""
    init_default_scope("mmpretrain")
    model = torch.nn.Module()
    model.data_preprocessor = MODELS.build(
        dict(type="ClsDataPreprocessor", **cfg.data_preprocessor)
    )
    settings = json.loads(json.dumps(runner_metadata.describe_reading(model, cfg)))
    predictor = Predictor(lambda inputs: [], dict(KNOWN, **settings))
    with pytest.raises(ValueError, match="exported for another version"):
        Predictor(lambda inputs: [], dict(predictor.settings, version=2))
    pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
    for path in images:
        sample = pipeline(dict(img_path=str(path)))
        expected = model.data_preprocessor(pseudo_collate([sample]))["inputs"]
        found = prepare_image(predictor.read(path), predictor.settings)[0]
        np.testing.assert_array_equal(found, expected.numpy(), err_msg=str(path))
        picture = as_picture(predictor.read(path))
        assert (picture.ndim, picture.shape[2], picture.dtype) == (3, 3, np.uint8)
    return predictor


@pytest.mark.parametrize("options", [{}, dict(pad_size_divisor=32, pad_value=7)], ids=str)
@pytest.mark.parametrize("steps", PIPELINES.values(), ids=PIPELINES)
def test_images_become_the_same_inputs_bit_by_bit(steps, options, tmp_path):
    assert_same_inputs(classifier_config(steps, **options), write_images(tmp_path, 6))


@pytest.mark.parametrize("color_type", ["color", "grayscale", "unchanged"])
def test_odd_images_are_read_as_by_the_toolbox_or_refused(color_type, tmp_path):
    cfg = classifier_config([dict(type="Resize", scale=(64, 64))])
    cfg.test_dataloader.dataset.pipeline[0].color_type = color_type
    if color_type == "grayscale":
        cfg.data_preprocessor.update(mean=[120.0], std=[60.0], to_rgb=False)
    paths = write_odd_images(tmp_path)
    alpha = paths.pop("alpha") if color_type == "unchanged" else None
    predictor = assert_same_inputs(cfg, paths.values())
    picture = as_picture(predictor.read(paths["deep"]))
    assert picture.min() < 20 and picture.max() > 240
    if alpha:
        with pytest.raises(ValueError, match="takes images of 3 channels, and this one has 4"):
            predictor(predictor.read(alpha))
