"""Every config is built: the model, the pipelines, the optimiser and its schedule."""

import copy
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    init_default_scope,
)

from mmvanilla.apis.config import leaves
from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.models.fusion import FusableLayer
from mmvanilla.utils.dependencies import has_toolbox
from tests.helpers import CONFIGS

NAMES = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob("*.py")
    if "_base_" not in path.relative_to(CONFIGS).parts
)
# Configs name their toolbox by their task, and what the others have is not looked at.
TOOLBOXES = {"maskrcnn": "mmdet", "retinanet": "mmdet", "upernet": "mmseg"}


def toolbox_of(name):
    return TOOLBOXES.get(Path(name).name.partition("_")[0], "mmpretrain")


@pytest.fixture(params=NAMES)
def cfg(request):
    toolbox = toolbox_of(request.param)
    if not has_toolbox(toolbox):
        pytest.skip(f"{toolbox} is not installed")
    cfg = Config.fromfile(str(CONFIGS / request.param))
    assert cfg.default_scope == toolbox
    # As the Runner would: transforms register when their package is imported.
    for part in ("datasets", "engine"):
        importlib.import_module(f"{toolbox}.{part}")
    init_default_scope(cfg.default_scope)
    return cfg


def build_without_weights(model_cfg):
    # Full-size models without the memory; the small ResNets compute in their constructor.
    with torch.device("cpu" if "ResNet" in str(model_cfg.backbone.type) else "meta"):
        # A copy, since some modules change the lists that they are built from.
        return MODELS.build(copy.deepcopy(model_cfg))


def find(registry, name):
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(name)


def test_model_and_its_deploy_form_build(cfg):
    model = build_without_weights(cfg.model)
    if "ResNet" in cfg.model.backbone.type and "conv_cfg" not in cfg.model.backbone:
        return  # what ours is compared with: nothing to fuse
    assert any(isinstance(m, FusableLayer) for m in model.modules())
    deployed = build_without_weights(deploy_config(cfg).model)
    assert not any(isinstance(m, FusableLayer) for m in deployed.modules())


def test_pipelines_evaluators_and_hooks_build(cfg):
    for name in ("train", "val", "test"):
        node = cfg.get(f"{name}_dataloader", {}).get("dataset")
        for dataset in leaves(node) if node else ():
            assert find(DATASETS, dataset.type) is not None
            for transform in dataset.pipeline:
                if transform.type != "mmdet.Albu" or find_spec("albumentations"):
                    TRANSFORMS.build(transform)
    for transform in cfg.get("tta_pipeline", ()):
        TRANSFORMS.build(transform)
    assert "tta_model" not in cfg or find(MODELS, cfg.tta_model.type) is not None
    for evaluator in (cfg.get("val_evaluator"), cfg.get("test_evaluator")):
        for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
            # Built as far as that needs no annotation file.
            assert metric is None or find(METRICS, metric.type) is not None
    for hook in [*cfg.default_hooks.values(), *(cfg.get("custom_hooks") or [])]:
        # Those that draw want the Runner's visualizer first.
        if "Visualization" in hook.type:
            assert find(HOOKS, hook.type) is not None
        else:
            HOOKS.build(hook)


def test_optimiser_and_schedule_build(cfg):
    if "optim_wrapper" not in cfg:
        pytest.skip("this config only tests published weights: their recipe is unpublished")
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
        scheduler = dict(scheduler)
        if scheduler.pop("convert_to_iter_based", False):
            kind = find(PARAM_SCHEDULERS, scheduler.pop("type"))
            kind.build_iter_from_epoch(wrapper, epoch_length=10, **scheduler)
        else:
            PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=wrapper))
