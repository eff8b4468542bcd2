"""Every config is built: the model, the pipelines, the optimiser and its schedule."""

import copy
import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import (
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    init_default_scope,
)
from projects.family.family import FAMILY

from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.models.fusion import FusableLayer
from mmvanilla.utils.dependencies import has_toolbox
from tests.helpers import CONFIGS, ROOT

NAMES = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob("*.py")
    if "_base_" not in path.relative_to(CONFIGS).parts
)
# Configs name their toolbox by their task, and what the others have is not looked at.
TOOLBOXES = {
    "maskrcnn": "mmdet",
    "retinanet": "mmdet",
    "upernet": "mmseg",
    "rotated": "mmrotate",
    "pose": "mmpose",
    "yolov8": "mmyolo",
    "fcos3d": "mmdet3d",
}


def toolbox_of(name):
    task = Path(name).name.partition("_")[0]
    return TOOLBOXES.get(task, "mmpretrain")


@pytest.fixture(params=NAMES)
def cfg(request):
    toolbox = toolbox_of(request.param)
    if not has_toolbox(toolbox):
        pytest.skip(f"{toolbox} is not installed")
    cfg = Config.fromfile(str(CONFIGS / request.param))
    assert cfg.default_scope == toolbox
    # As the Runner would: transforms register when their package is imported.
    for part in ("datasets", "engine"):
        if find_spec(f"{toolbox}.{part}"):  # MMRotate has no engine of its own
            importlib.import_module(f"{toolbox}.{part}")
    init_default_scope(cfg.default_scope)
    return cfg


def build_without_weights(model_cfg):
    # Full-size models without the memory; the small ResNets compute in their constructor.
    with torch.device("cpu" if "ResNet" in str(model_cfg.backbone.type) else "meta"):
        # A copy, since some modules change the lists that they are built from.
        return MODELS.build(copy.deepcopy(model_cfg))


def is_plain_resnet(backbone_cfg):
    return "ResNet" in str(backbone_cfg.type) and "conv_cfg" not in backbone_cfg


def find(registry, name):
    if isinstance(name, type):  # as in pure-Python configs
        return name
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(name)


def test_model_and_its_deploy_form_build(cfg):
    if is_plain_resnet(cfg.model.backbone):  # what ours is compared with: nothing to fuse
        build_without_weights(cfg.model)
        return
    assert any(isinstance(m, FusableLayer) for m in build_without_weights(cfg.model).modules())
    deployed = build_without_weights(deploy_config(cfg).model)
    assert not any(isinstance(m, FusableLayer) for m in deployed.modules())


def test_pipelines_evaluators_and_hooks_build(cfg):
    for name in ("train", "val", "test"):
        dataset = cfg.get(f"{name}_dataloader", {}).get("dataset")
        if dataset is None:
            continue
        while "dataset" in dataset:
            dataset = dataset.dataset
        assert find(DATASETS, dataset.type) is not None
        for transform in dataset.pipeline:
            if transform.type != "mmdet.Albu" or find_spec("albumentations"):
                TRANSFORMS.build(transform)
    for transform in cfg.get("tta_pipeline", ()):
        TRANSFORMS.build(transform)
    if not {"family", "pure_python"} & set(Path(cfg.filename).parts):
        assert find(MODELS, cfg.tta_model.type) is not None
    for evaluator in (cfg.get("val_evaluator"), cfg.get("test_evaluator")):
        for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
            # Built as far as that needs no annotation file.
            assert metric is None or find(METRICS, metric.type) is not None
    for hook in [*cfg.default_hooks.values(), *(cfg.get("custom_hooks") or [])]:
        # Those that draw want the Runner's visualizer first.
        if "Visualization" in str(hook.type) or hook.type == "BadCaseAnalysisHook":
            assert find(HOOKS, hook.type) is not None
        else:
            HOOKS.build(hook)


def test_optimiser_and_schedule_build(cfg):
    if "optim_wrapper" not in cfg:
        pytest.skip("this config only tests published weights: their recipe is unpublished")
    from mmengine.optim import build_optim_wrapper

    model = build_without_weights(cfg.model)
    optim_cfg = {**cfg.optim_wrapper, "type": "OptimWrapper"}
    # AMP itself needs a device; its wrapper's own options go with it.
    optim_cfg.pop("loss_scale", None)
    optim_cfg.pop("dtype", None)
    wrapper = build_optim_wrapper(model, optim_cfg)
    optimised = {p for group in wrapper.optimizer.param_groups for p in group["params"]}
    assert optimised == {p for p in model.parameters() if p.requires_grad}
    schedulers = cfg.get("param_scheduler") or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        convert = scheduler.get("convert_to_iter_based", False)
        scheduler_cfg = {k: v for k, v in scheduler.items() if k != "convert_to_iter_based"}
        if convert:
            scheduler_class = find(PARAM_SCHEDULERS, scheduler_cfg.pop("type"))
            scheduler_class.build_iter_from_epoch(wrapper, epoch_length=10, **scheduler_cfg)
        else:
            PARAM_SCHEDULERS.build(scheduler_cfg, default_args=dict(optimizer=wrapper))


def test_configs_lie_by_what_they_train():
    top = {path.name for path in CONFIGS.glob("*.py")}
    assert top == {
        "maskrcnn_vanillanet.py",
        "retinanet_vanillanet.py",
        "upernet_vanillanet.py",
        "upernet_vanillanet6.py",
    }
    folders = {path.name for path in CONFIGS.iterdir() if path.is_dir()} - {"__pycache__"}
    expected = {"_base_", "imagenet", "shapes"}
    expected |= {"small"}
    assert folders == expected


def test_no_config_says_what_another_says():
    """Ten lines in a row that two files share belong in a base."""
    seen: dict[tuple[str, ...], Path] = {}
    for path in sorted(CONFIGS.rglob("*.py")):
        code = [
            line.split("#")[0].strip()
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.split("#")[0].strip()
        ]
        for start in range(len(code) - 9):
            other = seen.setdefault(tuple(code[start : start + 10]), path)
            assert other == path, f"{path} repeats {other}: {code[start : start + 10]}"


def test_no_base_is_left_over():
    bases = list((CONFIGS / "_base_").rglob("*.py"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in CONFIGS.rglob("*.py"))
    assert bases
    for path in bases:
        assert f'{path.name}"' in text, f"nothing inherits {path}"


@pytest.mark.parametrize("text", [*(f"configs/{name}" for name in NAMES), "README.md"])
def test_paths_in_commands_exist(text):
    content = (ROOT / text).read_text(encoding="utf-8")
    for path in re.findall(r"(?<![\w./])(?:configs|tools)/[\w./-]+\.(?:py|sh)", content):
        assert (ROOT / path).is_file(), f"{text} names {path}"


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize("name", ["maskrcnn_vanillanet.py", "retinanet_vanillanet.py"])
def test_what_the_coco_base_lends_is_not_left_in_the_config(name):
    cfg = Config.fromfile(str(CONFIGS / name))
    assert not {"backbone", "multi_scale_resize", "flipped_and_packed"} & set(cfg)
    assert "_delete_" not in cfg.pretty_text


def test_every_config_belongs_to_a_toolbox():
    stacks = {"mmdet", "mmseg", "mmpretrain"}
    assert {toolbox_of(name) for name in NAMES} == stacks | set(FAMILY)


@pytest.mark.toolbox("mmdet")
def test_mask_rcnn_follows_the_authors_recipe():
    cfg = Config.fromfile(str(CONFIGS / "maskrcnn_vanillanet.py"))
    backbone = cfg.model.backbone
    assert (backbone.arch, backbone.act_num, backbone.norm_cfg.type) == ("13", 4, "SyncBN")
    assert backbone.init_cfg.checkpoint == "vanillanet://13-act4"
    assert cfg.train_dataloader.batch_size == 4 and cfg.auto_scale_lr.base_batch_size == 32
    assert cfg.optim_wrapper.optimizer == dict(
        type="AdamW", lr=1.3e-4, betas=(0.9, 0.999), weight_decay=0.05
    )
    assert cfg.optim_wrapper.paramwise_cfg == dict(decay_rate=0.6, num_layers=6)
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.end) == ("LinearLR", 0.001, 500)
    assert (steps.type, steps.milestones) == ("MultiStepLR", [10, 12])
    assert cfg.train_cfg.max_epochs == 12
    resize = next(step for step in cfg.train_pipeline if step.type == "RandomChoiceResize")
    assert resize.scales == [(1333, side) for side in range(480, 1025, 32)]
    assert resize.scales[-1] == (1333, 1024) and len(resize.scales) == 18
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
