"""Fine-tuning from fused weights: half the layers, no norms in the backbone, no λ."""

import pytest
import torch

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model
from mmvanilla.apis.runners import build_train_runner, release
from mmvanilla.datasets.shapes import make_shapes
from mmvanilla.deploy.fuse_checkpoint import fuse_checkpoint
from tests.helpers import CONFIGS


@pytest.mark.exhaustive
@pytest.mark.toolbox("mmdet")
def test_a_fused_detector_learns_with_layer_decay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shapes("data/shapes", layouts=("coco",), num_train=8, num_val=2, image_size=64)
    cfg = load_config(str(CONFIGS / "shapes" / "maskrcnn_vanillanet_shapes.py"))
    trained = build_model(cfg)
    trained.init_weights()
    torch.save(dict(state_dict=trained.state_dict()), "trained.pth")
    fuse_checkpoint(cfg.filename, "trained.pth", "fused.pth", sizes=[(64, 64)])

    options = {
        "load_from": "fused.pth",
        "train_cfg.max_epochs": 3,
        "train_cfg.val_interval": 9,
        "param_scheduler": None,
        "randomness.seed": 0,
        "optim_wrapper.constructor": "LayerDecayOptimWrapperConstructor",
        "optim_wrapper.paramwise_cfg": dict(_delete_=True, decay_rate=0.8),
    }
    for split in ("train", "val"):
        options[f"{split}_dataloader.num_workers"] = 0
        options[f"{split}_dataloader.persistent_workers"] = False
    runner = build_train_runner("fused.py", work_dir="out", cfg_options=options)
    runner.train()
    losses, _ = runner.message_hub.get_scalar("train/loss").data
    backbone = runner.model.backbone
    release(runner)

    assert len(losses) == 6 and losses[-2:].sum() < 0.9 * losses[:2].sum()
    assert backbone.deploy
    assert not [each for each in backbone.modules() if "Norm" in type(each).__name__]
    before = torch.load("fused.pth", weights_only=True)["state_dict"]
    after = backbone.state_dict()
    assert after and not [
        key for key in after if torch.equal(after[key], before[f"backbone.{key}"])
    ]
