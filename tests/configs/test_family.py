"""VanillaNet in the toolboxes beside the stacks: a narrow one is trained, fused, and tested.

Each test is skipped where its toolbox is not installed; docs/family.md says how to install it.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mmvanilla import fuse_model
from mmvanilla.apis.config import load_config
from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.apis.model import TensorModel, build_model, load_model
from mmvanilla.apis.runners import build_test_runner, build_train_runner, release
from mmvanilla.deploy.exportable import make_exportable
from mmvanilla.models.fusion import FusableLayer
from projects.family.family import FAMILY
from tests.family_data import draw_coco, draw_dota
from tests.helpers import CONFIGS, ROOT, randomise, relative_difference

FOLDER = CONFIGS / "family"
WIDTHS = [8, 16, 32, 64]  # the levels of a VanillaNet 1/64 as wide
ITERATIONS = 2


def narrow(cfg: Config) -> Config:
    """Make the backbone narrow, without weights to fetch."""
    cfg.model.backbone.update(width_mult=1 / 64, init_cfg=None)
    cfg.work_dir = None
    return cfg


def short(cfg: Config) -> Config:
    """Train for two iterations in this process, and validate after them."""
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    for name in ("val_dataloader", "test_dataloader"):
        cfg[name].update(num_workers=0, persistent_workers=False)
    cfg.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=1, val_interval=1)
    cfg.default_hooks.checkpoint = dict(type="CheckpointHook", interval=1)
    cfg.custom_hooks = [dict(type="DeepTrainingHook", decay_iters=1, by_epoch=False)]
    return cfg


def rotated_retinanet(data: Path) -> Config:
    draw_dota(data)
    cfg = short(narrow(Config.fromfile(FOLDER / "rotated_retinanet_vanillanet_dota.py")))
    cfg.model.neck.update(in_channels=WIDTHS, out_channels=16)
    cfg.model.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
    cfg.model.test_cfg.update(nms_pre=20, max_per_img=20)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        cfg[name].dataset.data_root = f"{data}/"
        for step in cfg[name].dataset.pipeline:
            if step.type == "mmdet.Resize":
                step.scale = (128, 128)
    return cfg


def pose_estimator(data: Path) -> Config:
    draw_coco(data)
    cfg = short(narrow(Config.fromfile(FOLDER / "pose_vanillanet_coco.py")))
    cfg.model.head.update(in_channels=WIDTHS[3], deconv_out_channels=(16, 16, 16))
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        cfg[name].dataset.update(data_root=f"{data}/", bbox_file=None)
    for name in ("val_evaluator", "test_evaluator"):
        cfg[name].ann_file = f"{data}/annotations/person_keypoints_val2017.json"
    return cfg


def yolo(data: Path) -> Config:
    draw_coco(data)
    cfg = short(narrow(Config.fromfile(FOLDER / "yolov8_vanillanet_coco.py")))
    mapper, pafpn = cfg.model.neck
    mapper.update(in_channels=WIDTHS[1:], out_channels=16)
    pafpn.update(in_channels=[16] * 3, out_channels=[16] * 3)
    cfg.model.bbox_head.head_module.update(in_channels=[16] * 3, num_classes=1)
    cfg.model.train_cfg.assigner.num_classes = 1
    # Untrained heads give scores of 1e-5; without a detection there would be no metric.
    cfg.model.test_cfg.update(nms_pre=20, max_per_img=20, score_thr=0.0)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        cfg[name].dataset.data_root = f"{data}/"
        cfg[name].dataset.metainfo = dict(classes=("person",))
    # Without mosaics, at a small size, and without albumentations, which need not be installed.
    steps = [dict(step) for step in cfg.train_pipeline_stage2 if step["type"] != "mmdet.Albu"]
    for step in [*steps, *cfg.val_dataloader.dataset.pipeline]:
        if "scale" in step:
            step["scale"] = (64, 64)
    cfg.train_dataloader.dataset.pipeline = steps
    cfg.test_dataloader.dataset.pipeline = cfg.val_dataloader.dataset.pipeline
    for name in ("val_evaluator", "test_evaluator"):
        cfg[name].ann_file = f"{data}/annotations/instances_val2017.json"
    return cfg


@dataclass(frozen=True)
class Case:
    """A config of the family: its toolbox, how to narrow it, and what it gives."""

    toolbox: str
    make: Callable[[Path], Config]
    config: str
    loss: str
    metric: str
    levels: int  # outputs of the neck, or of the head
    stem_scale: float  # learning rate of the stem, relative to the heads'


CASES = {
    "rotated": Case(
        "mmrotate",
        rotated_retinanet,
        "rotated_retinanet_vanillanet_dota",
        "loss_bbox",
        "dota/mAP",
        5,
        0.6**7,
    ),
    "pose": Case(
        "mmpose", pose_estimator, "pose_vanillanet_coco", "loss_kpt", "coco/AP", 1, 0.8**8
    ),
    "yolo": Case("mmyolo", yolo, "yolov8_vanillanet_coco", "loss_dfl", "coco/bbox_mAP", 3, 0.8**8),
}


@pytest.fixture(
    params=[pytest.param(n, marks=pytest.mark.toolbox(CASES[n].toolbox)) for n in CASES]
)
def case(request) -> Case:
    return CASES[request.param]


def run_tool(
    folder: Path, tool: str, *arguments: object, code: int = 0
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == code, result.stdout[-3000:] + result.stderr[-3000:]
    return result


@pytest.mark.slow
def test_it_is_trained_fused_and_tested(case, tmp_path):
    cfg = case.make(tmp_path / "data")
    cfg.dump(str(tmp_path / "narrow.py"))
    runner = build_train_runner(str(tmp_path / "narrow.py"), work_dir=str(tmp_path / "work"))
    runner.train()
    assert runner.iter == ITERATIONS
    losses = runner.message_hub.log_scalars[f"train/{case.loss}"].data[0]
    assert len(losses) == ITERATIONS and np.isfinite(losses).all()
    assert runner.message_hub.log_scalars["train/act_lambda"].current() == 1.0
    assert case.metric in {name.removeprefix("val/") for name in runner.message_hub.log_scalars}
    groups = runner.optim_wrapper.optimizer.param_groups
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for name, parameter in runner.model.named_parameters():
        if name.startswith("backbone.stem."):
            assert scales[id(parameter)] == pytest.approx(case.stem_scale)
        elif not name.startswith("backbone."):
            assert scales[id(parameter)] == 1
    release(runner)

    # Every output of both forms, and the metric of each, by the tools that users call.
    run_tool(tmp_path, "fuse_backbone.py", "narrow.py", "work/epoch_1.pth", "fused.pth")
    found = {}
    for config, weights in (("narrow.py", "work/epoch_1.pth"), ("fused.py", "fused.pth")):
        runner = build_test_runner(
            str(tmp_path / config), str(tmp_path / weights), str(tmp_path / "test")
        )
        found[config] = runner.test()
        release(runner)
    assert case.metric in found["narrow.py"]
    assert found["fused.py"] == pytest.approx(found["narrow.py"], abs=1e-3)


def test_its_model_fuses_to_the_same_outputs(case, tmp_path):
    cfg = case.make(tmp_path / "data")
    model = randomise(build_model(cfg)).eval()
    fused = fuse_model(model).model
    assert not any(isinstance(module, FusableLayer) for module in fused.modules())
    deployed = build_model(deploy_config(cfg)).eval()
    deployed.load_state_dict(fused.state_dict(), strict=True)
    inputs = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected, found, built = (TensorModel(m)(inputs) for m in (model, fused, deployed))
    if isinstance(expected, torch.Tensor):
        expected, found, built = (expected,), (found,), (built,)
    assert len(expected) == case.levels
    for before, after, again in zip(expected, found, built, strict=True):
        assert relative_difference(before, after) <= 1e-4
        assert torch.equal(after, again)


@pytest.mark.toolbox("mmpose")
def test_mmpose_calls_switch_to_deploy_with_its_test_cfg(tmp_path):
    model = build_model(pose_estimator(tmp_path / "data")).eval()
    model.switch_to_deploy()
    assert model.backbone.deploy


@pytest.mark.slow
@pytest.mark.toolbox("mmpose")
def test_the_name_that_mmpose_takes_is_refused_with_the_remedy(tmp_path):
    cfg = pose_estimator(tmp_path / "data")
    cfg.optim_wrapper.constructor = "LayerDecayOptimWrapperConstructor"
    cfg.dump(str(tmp_path / "narrow.py"))
    error = run_tool(tmp_path, "train.py", "narrow.py", code=1).stderr
    assert "set it to 'mmvanilla.LayerDecayOptimWrapperConstructor'" in error
    assert not (tmp_path / "work_dirs").exists()


@pytest.mark.toolbox("mmpose")
@pytest.mark.parametrize("first", ["mmpose.engine", "mmvanilla"])
def test_both_are_imported_in_either_order(first):
    second = "mmvanilla" if first == "mmpose.engine" else "mmpose.engine"
    code = f"import {first}, {second}; assert mmvanilla.LayerDecayOptimWrapperConstructor"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.toolbox("mmpose")
def test_a_pose_estimator_has_no_logits(tmp_path):
    model = build_model(pose_estimator(tmp_path / "data"))
    for output in ("logits", "probabilities", "full_size_logits"):
        with pytest.raises(ValueError, match="has no head that gives|not a segmenter"):
            TensorModel(model, output)
    assert TensorModel(model, "head").what == "outputs of the head"
    assert make_exportable(model.eval()).part == "backbone"


def mono3d_batch(size: tuple[int, int] = (96, 128)) -> dict:
    """Random images with two boxes in space each, as MMDetection3D's loader gives them."""
    from mmdet3d.structures import CameraInstance3DBoxes, Det3DDataSample
    from mmengine.structures import InstanceData

    corners = torch.tensor([[10.0, 20.0, 60.0, 70.0], [50.0, 30.0, 120.0, 80.0]])
    centres = (corners[:, :2] + corners[:, 2:]) / 2
    labels = torch.tensor([0, 5])
    # Place, size, turn and velocity, in metres and radians.
    place = [
        [0.0, 1.0, 9.0, 2.0, 1.5, 4.0, 0.3, 0.0, 0.0],
        [2.0, 1.0, 7.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    ]
    boxes = CameraInstance3DBoxes(torch.tensor(place), box_dim=9)
    samples = []
    for _ in range(2):
        camera = [
            [80.0, 0.0, 64.0, 0.0],
            [0.0, 80.0, 48.0, 0.0],
            [0.0, 0.0, 1.0, 0.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size, cam2img=camera)
        meta.update(box_type_3d=CameraInstance3DBoxes, scale_factor=1.0)
        sample = Det3DDataSample(metainfo=meta)
        attributes = torch.tensor([1, 2])
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=boxes,
            labels_3d=labels,
            centers_2d=centres,
            depths=boxes.tensor[:, 2],
            attr_labels=attributes,
        )
        sample.gt_instances = InstanceData(bboxes=corners, labels=labels, attr_labels=attributes)
        sample.eval_ann_info = None
        samples.append(sample)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in samples]
    return dict(inputs=dict(img=images), data_samples=samples)


@pytest.mark.slow
@pytest.mark.toolbox("mmdet3d")
def test_a_3d_detector_takes_a_step_and_is_fused(tmp_path):
    """Its data sets cannot be drawn in a few lines, so that the model is trained without them."""
    cfg = narrow(Config.fromfile(FOLDER / "fcos3d_vanillanet_nuscenes.py"))
    cfg.model.neck.update(in_channels=WIDTHS, out_channels=32)
    cfg.model.bbox_head.update(in_channels=32, feat_channels=32, stacked_convs=2)
    for name in ("cls_branch", "dir_branch", "attr_branch"):
        cfg.model.bbox_head[name] = (32,)
    cfg.model.bbox_head.reg_branch = ((32,), (32,), (32,), (32,), ())
    cfg.dump(str(tmp_path / "narrow.py"))
    model = build_model(load_config(str(tmp_path / "narrow.py")))
    model.init_weights()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    scales = {id(p): g["lr_scale"] for g in wrapper.optimizer.param_groups for p in g["params"]}
    assert scales[id(next(model.backbone.stem.parameters()))] == pytest.approx(0.6**7)
    before = copy.deepcopy(model.state_dict())
    losses = model.train_step(mono3d_batch(), wrapper)
    assert {"loss_cls", "loss_depth", "loss_velo"} <= losses.keys()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())
    torch.save(dict(meta={}, state_dict=model.state_dict()), tmp_path / "epoch_1.pth")
    run_tool(tmp_path, "fuse_backbone.py", "narrow.py", "epoch_1.pth", "fused.pth")
    fused, _ = load_model(load_config(str(tmp_path / "fused.py")), str(tmp_path / "fused.pth"))
    found = [net.eval().test_step(mono3d_batch()) for net in (model, fused)]
    for expected, other in zip(*found, strict=True):
        boxes, scores = expected.pred_instances_3d.bboxes_3d, expected.pred_instances_3d.scores_3d
        assert len(boxes) == len(other.pred_instances_3d.bboxes_3d)
        torch.testing.assert_close(other.pred_instances_3d.scores_3d, scores, rtol=1e-3, atol=1e-4)


def test_every_config_of_the_family_has_a_case():
    with_data = {case.config for case in CASES.values()}
    assert {path.stem for path in FOLDER.glob("*.py")} == with_data | {"fcos3d_vanillanet_nuscenes"}
    assert {case.toolbox for case in CASES.values()} | {"mmdet3d"} == set(FAMILY)
