"""Pictures and test-time augmentation of all toolboxes, on a few images and random weights."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model
from mmvanilla.apis.pictures import PicturesInRun, switch_pictures_on
from mmvanilla.apis.runners import build_test_runner, release
from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import CONFIGS, randomise

# The pictures of a run, below the folder that --show-dir names, and what is measured.
RUNS = {
    "maskrcnn_vanillanet": ("mmdet", "*.png", {"coco/bbox_mAP", "coco/segm_mAP"}),
    "upernet_vanillanet": ("mmseg", "vis_data/vis_image/*.png", {"mIoU"}),
    "vanillanet": ("mmpretrain", "*.png", {"accuracy/top1"}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    make_shapes(folder / "data" / "shapes", num_train=6, num_val=6, image_size=64)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.toolbox(RUNS[n][0])) for n in RUNS]
)
def test_tta_runs_and_pictures_are_inside_the_run(name, data, monkeypatch):
    monkeypatch.chdir(data)
    toolbox, pictures, measured = RUNS[name]
    config = str(CONFIGS / "shapes" / f"{name}_shapes.py")
    model = randomise(build_model(load_config(config)))
    torch.save(dict(state_dict=model.state_dict()), "weights.pth")
    # Views and pictures at once, where the toolbox can.
    passes = [(True, None), (False, "show")] if toolbox == "mmpretrain" else [(True, "show")]
    few = {"num_workers": 0, "persistent_workers": False, "dataset.indices": 2, "batch_size": 1}
    options = {f"test_dataloader.{key}": value for key, value in few.items()}
    if toolbox == "mmdet":
        options["model.test_cfg.rcnn.max_per_img"] = 2
    for tta, show_dir in passes:
        runner = build_test_runner(
            config,
            "weights.pth",
            work_dir=f"out_{toolbox}_{tta}",
            show_dir=show_dir,
            tta=tta,
            cfg_options=options,
        )
        metrics = runner.test()
        release(runner)
        assert type(runner.model).__name__.endswith(("TTA", "TTAModel")) == tta
        assert measured <= set(metrics)
    run = Path(runner.work_dir) / runner.timestamp
    assert len(list((run / "show").glob(pictures))) == 2
    assert not Path("show").exists()


class Runner:
    """Stands for mmengine's."""

    work_dir, timestamp = "/work_dirs/x", "2026"

    def __init__(self, cfg):
        self.cfg, self.hooks = cfg, []

    def build_visualizer(self, visualizer=None):
        return visualizer

    def register_hooks(self, hook):
        self.hooks.append(Config(dict(hook=hook)).hook)


class OurRunner(PicturesInRun, Runner):
    pass


def config(scope):
    return Config(
        dict(default_scope=scope, default_hooks=dict(visualization=dict(type="X")), model={})
    )


@pytest.mark.parametrize(
    ("show_dir", "folder"),
    [
        ("show", "/work_dirs/x/2026/show"),
        ("a/b", "/work_dirs/x/2026/a/b"),
        ("/absolute", "/absolute"),
        ("~/home", str(Path.home() / "home")),
    ],
)
def test_a_relative_folder_is_inside_the_run_and_an_absolute_one_stays(show_dir, folder):
    for scope in ("mmpretrain", "mmseg"):
        cfg = config(scope)
        switch_pictures_on(cfg, False, show_dir, 0.0)
        runner = OurRunner(cfg)
        visualizer = runner.build_visualizer(dict(type="Y"))
        runner.register_hooks(cfg.default_hooks.visualization)
        if scope == "mmseg":
            assert visualizer == dict(type="Y", save_dir=folder)
            assert runner.hooks == [dict(type="X", draw=True, show=False, wait_time=0.0)]
        else:
            assert visualizer == dict(type="Y")
            assert runner.hooks[0].out_dir == folder and runner.hooks[0].interval == 1


def test_without_a_folder_nothing_is_moved():
    cfg = config("mmseg")
    switch_pictures_on(cfg, True, None, 1.0)
    assert cfg.default_hooks.visualization == dict(type="X", draw=True, show=True, wait_time=1.0)
    assert OurRunner(cfg).build_visualizer(None) is None


def test_a_config_without_the_hook_is_refused():
    with pytest.raises(ValueError, match="nothing can be shown; leave --show"):
        switch_pictures_on(Config(dict(default_scope="mmpose", model={})), True, None, 0.0)


@pytest.mark.toolbox("mmpretrain")
def test_mmpretrain_draws_no_augmented_images(data, monkeypatch):
    monkeypatch.chdir(data)
    Path("empty.pth").touch()
    config = str(CONFIGS / "shapes" / "vanillanet_shapes.py")
    with pytest.raises(ValueError, match="cannot draw the augmented images of --tta"):
        build_test_runner(config, "empty.pth", show_dir="show", tta=True)
