"""Every detector of docs/detectors.md, with MMCV's compiled operators and with the stand-in."""

import copy
import random

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope

from tests.configs.test_detectors_table import ROWS, plugged
from tests.ops.common import needs_compiled, with_both

pytestmark = [needs_compiled, pytest.mark.exhaustive, pytest.mark.toolbox("mmdet")]


def step(config: dict, size: int, weights: dict) -> dict[str, torch.Tensor]:
    """Return the loss, the norm of the gradient and the predictions of one fixed step."""
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs

    def inputs() -> dict:
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(0)
        has_masks = "mask" in str(config)
        kinds = dict(num_classes=80, with_mask=has_masks, with_semantic=has_masks)
        return demo_mm_inputs(2, [(3, size, size)] * 2, **kinds)

    inputs()
    model = MODELS.build(copy.deepcopy(config))
    if not weights:
        model.init_weights()
        weights.update(copy.deepcopy(model.state_dict()))
    model.load_state_dict(weights)
    for name in ("iter", "epoch"):  # YOLOX resizes by one, TOOD changes its loss by the other
        MessageHub.get_current_instance().update_info(name, 0)
    model.train()
    data = model.data_preprocessor(inputs(), training=True)
    loss, _ = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    squares = [one.grad.square().sum() for one in model.parameters() if one.grad is not None]
    found = {"loss": loss.detach(), "gradient": torch.stack(squares).sum().sqrt()}
    model.eval()
    with torch.no_grad():
        results = model.test_step(inputs())
    for index, result in enumerate(results):
        for kind in ("pred_instances", "pred_panoptic_seg"):
            for key, value in getattr(result, kind, {}).items():
                found[f"{index} {key}"] = torch.as_tensor(value)
    return found


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.name) for row in ROWS if row.toolbox == "mmdet"]
)
def test_loss_gradient_and_predictions_are_equal(row):
    init_default_scope("mmdet")
    config = plugged(row).model
    for settings in (config.get("test_cfg"), (config.get("test_cfg") or {}).get("rcnn")):
        for key in {"score_thr", "mask_thr", "filter_thr"} & set(settings or ()):
            settings[key] = 0  # random weights are sure of nothing
    weights: dict = {}
    size = 256 if row.name == "DINO" else 128  # DINO takes the best 900 places
    theirs, ours = with_both(lambda: step(config, size, weights))
    assert theirs["loss"].isfinite() and theirs["gradient"] > 0
    assert any(value.numel() for key, value in theirs.items() if key[0] == "0")
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key
