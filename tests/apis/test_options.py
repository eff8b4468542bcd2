"""What a command line switches on or off in a config."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmvanilla.apis.config import leaves, load_config
from mmvanilla.apis.model import build_model
from mmvanilla.apis.options import set_mixed_precision, set_pictures, set_tta
from mmvanilla.apis.runners import build_test_runner
from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import CONFIGS, randomise, release


def test_mixed_precision():
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type="SGD"), accumulative_counts=2)))
    plain = dict(cfg.optim_wrapper, type="OptimWrapper")
    set_mixed_precision(cfg, True)
    assert cfg.optim_wrapper == dict(plain, type="AmpOptimWrapper", loss_scale="dynamic")
    set_mixed_precision(cfg, None)
    set_mixed_precision(cfg, False)
    assert cfg.optim_wrapper == plain
    cfg.optim_wrapper.type = "BFloat16OptimWrapper"
    set_mixed_precision(cfg, False)
    assert cfg.optim_wrapper == plain
    cfg.optim_wrapper.type = "MyOptimWrapper"
    with pytest.raises(ValueError, match="--amp would replace the MyOptimWrapper"):
        set_mixed_precision(cfg, True)


@pytest.mark.parametrize("scope", ["mmdet", "mmseg", "mmpretrain"])
def test_pictures_are_in_the_folder_that_is_named(scope, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config(dict(default_scope=scope, default_hooks=dict(visualization=dict(type="X"))))
    set_pictures(cfg, "show")
    hook = cfg.default_hooks.visualization
    drawn = cfg.get("visualizer", {}).get("save_dir")
    places = [hook.get("test_out_dir"), hook.get("out_dir"), drawn]
    assert [place for place in places if place] == [str(tmp_path / "show")]
    assert hook.get("draw") or hook.get("enable")


def test_augmented_images_are_not_drawn_where_the_hook_cannot():
    draws = dict(default_hooks=dict(visualization=dict(enable=True)))
    with pytest.raises(ValueError, match="cannot draw the augmented images"):
        set_tta(Config(dict(model={}, tta_model={}, tta_pipeline=[], **draws)))


def test_tta_reaches_every_data_set():
    node = dict(type="ConcatDataset", datasets=[dict(pipeline=[]), dict(dataset=dict(pipeline=[]))])
    loader = dict(test_dataloader=dict(dataset=node), default_hooks=None)
    cfg = Config(dict(model={}, tta_model={}, tta_pipeline=["x"], **loader))
    set_tta(cfg)
    assert [part.pipeline for part in leaves(cfg.test_dataloader.dataset)] == [["x"], ["x"]]


# The pictures below the folder that --show-dir names, and what is measured.
RUNS = {
    "maskrcnn_vanillanet": ("mmdet", "*.png", {"coco/bbox_mAP", "coco/segm_mAP"}),
    "upernet_vanillanet": ("mmseg", "vis_data/vis_image/*.png", {"mIoU"}),
    "vanillanet": ("mmpretrain", "*.png", {"accuracy/top1"}),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.toolbox(RUNS[n][0])) for n in RUNS]
)
def test_tta_and_pictures_in_each_toolbox(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shapes("data/shapes", num_train=6, num_val=6, image_size=64)
    toolbox, pictures, measured = RUNS[name]
    config = str(CONFIGS / "shapes" / f"{name}_shapes.py")
    model = randomise(build_model(load_config(config)))
    torch.save(dict(state_dict=model.state_dict()), "weights.pth")
    # Views and pictures at once, where the toolbox can; Mask R-CNN has no views.
    both = [(True, None), (False, "show")]
    passes = {"mmdet": both[1:], "mmseg": [(True, "show")], "mmpretrain": both}[toolbox]
    few = {"num_workers": 0, "persistent_workers": False, "dataset.indices": 2, "batch_size": 1}
    options = {f"test_dataloader.{key}": value for key, value in few.items()}
    if toolbox == "mmdet":
        options["model.test_cfg.rcnn.max_per_img"] = 2
    for tta, show_dir in passes:
        runner = build_test_runner(
            config, "weights.pth", show_dir=show_dir, tta=tta, cfg_options=options
        )
        metrics = runner.test()
        release(runner)
        assert type(runner.model).__name__.endswith(("TTA", "TTAModel")) == tta
        assert measured <= set(metrics)
    assert len(list(Path("show").glob(pictures))) == 2
