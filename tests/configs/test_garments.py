"""Detectors and segmenters on garments: pairs that differ in their backbone only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from mmvanilla.apis.complexity import count_config, count_macs
from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.apis.model import build_on_meta
from mmvanilla.datasets.fashion_mnist import CLASSES
from mmvanilla.datasets.garments import PALETTE, SEG_CLASSES, SEG_PALETTE, make_garments
from projects.studies.train_and_compare import time_fused, train_and_compare
from tests.fashion_files import write_fashion_mnist
from tests.helpers import CONFIGS, ROOT

FOLDER = CONFIGS / "garments"
TASKS = {
    "maskrcnn": pytest.param("maskrcnn", marks=pytest.mark.toolbox("mmdet")),
    "upernet": pytest.param("upernet", marks=pytest.mark.toolbox("mmseg")),
}
BACKBONES = ("vanillanet", "resnet")


def load(task: str, backbone: str) -> Config:
    cfg = Config.fromfile(FOLDER / f"{task}_{backbone}_garments.py")
    import_modules_from_strings(**cfg.custom_imports)
    init_default_scope(cfg.default_scope)
    return cfg


def test_the_folder_holds_the_pairs():
    names = {f"{task}_{backbone}_garments.py" for task in TASKS for backbone in BACKBONES}
    assert {path.name for path in FOLDER.glob("*.py")} == names


@pytest.mark.parametrize("task", TASKS.values())
def test_a_pair_differs_in_the_backbone_alone(task):
    ours, theirs = (load(task, backbone).to_dict() for backbone in BACKBONES)
    assert [hook["type"] for hook in ours.pop("custom_hooks")] == ["DeepTrainingHook"]
    assert ours["model"].pop("backbone")["type"] == "VanillaNet"
    assert theirs["model"].pop("backbone")["type"] == "ResNet"
    parts = ["neck"] if task == "maskrcnn" else ["decode_head", "auxiliary_head"]
    for cfg in (ours, theirs):
        for part in parts:
            cfg["model"][part].pop("in_channels")
    assert ours == theirs


@pytest.mark.parametrize("task", TASKS.values())
def test_the_backbones_of_a_pair_take_as_many_macs_as_the_page_says(task):
    page = (ROOT / "docs" / "fashion_mnist.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    titles = next(line for line in cells if line[:1] == ["network"] and "box mAP" in line)
    columns = [titles.index(title) for title in ("backbone, M", "MACs, M", "parameters, M")]
    networks = [f"{task}_{backbone}_garments" for backbone in BACKBONES]
    lines = [next(line for line in cells if line[:1] == [network]) for network in networks]
    counted = []
    for backbone in BACKBONES:
        cfg = load(task, backbone)
        whole = count_config(cfg, (96, 96), ("deploy",))[0][-1]
        model = build_on_meta(deploy_config(cfg)).eval()
        macs = count_macs(model.backbone, torch.zeros(1, 3, 96, 96, device="meta"))
        counted.append([macs / 1e6, whole.macs / 1e6, whole.params / 1e6])
    digits = ("{:.1f}", "{:.1f}", "{:.2f}")
    assert [[line[column] for column in columns] for line in lines] == [
        [text.format(value) for text, value in zip(digits, values, strict=True)]
        for values in counted
    ]
    assert counted[1][0] == pytest.approx(counted[0][0], rel=0.03)
    assert counted[1][1] == pytest.approx(counted[0][1], rel=0.05)


@pytest.mark.parametrize("task", TASKS.values())
def test_classes_and_sizes_are_those_of_the_data(task):
    cfg = load(task, "vanillanet")
    classes, palette = (CLASSES, PALETTE) if task == "maskrcnn" else (SEG_CLASSES, SEG_PALETTE)
    heads = (
        [cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head]
        if task == "maskrcnn"
        else [cfg.model.decode_head, cfg.model.auxiliary_head]
    )
    assert [head.num_classes for head in heads] == [len(classes)] * 2
    for name in ("train", "val", "test"):
        dataset = cfg[f"{name}_dataloader"].dataset
        assert dataset.data_root == cfg.data_root and "garments" in dataset.data_root
        assert dataset.metainfo.classes == classes
        assert [tuple(colour) for colour in dataset.metainfo.palette] == list(palette)
        for step in dataset.pipeline:
            if step.type == "Resize":
                assert tuple(step.scale) == (96, 96)
    if task == "maskrcnn":
        assert cfg.val_evaluator.ann_file == f"{cfg.data_root}annotations/instances_val.json"


@pytest.fixture(scope="module")
def garments_root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("garments")
    source = write_fashion_mnist(folder / "fashion")
    make_garments(folder / "data", num_train=4, num_val=2, image_size=64, source=source)
    return folder / "data"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "backbone"),
    [
        pytest.param("upernet", "vanillanet", marks=pytest.mark.toolbox("mmseg")),
        *(
            pytest.param(
                *pair, marks=[pytest.mark.toolbox("mmdet", "mmseg"), pytest.mark.exhaustive]
            )
            for pair in (("upernet", "resnet"), ("maskrcnn", "vanillanet"), ("maskrcnn", "resnet"))
        ),
    ],
)
def test_trains_fuses_and_is_timed(task, backbone, garments_root, tmp_path):
    root = garments_root / ("coco" if task == "maskrcnn" else "ade20k")
    options = {"train_cfg.max_epochs": 3, "train_dataloader.batch_size": 2}
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        options[f"{name}.dataset.data_root"] = f"{root}/"
        options[f"{name}.num_workers"] = 0
        options[f"{name}.persistent_workers"] = False
    if task == "maskrcnn":
        for name in ("val_evaluator", "test_evaluator"):
            options[f"{name}.ann_file"] = str(root / "annotations" / "instances_val.json")
    config = f"garments/{task}_{backbone}_garments.py"
    result = train_and_compare(config, 3, tmp_path, options)
    metric = "mIoU" if task == "upernet" else "coco/segm_mAP"
    assert 0 <= result.trained[metric] <= 100
    for name, value in result.trained.items():
        assert result.fused[name] == pytest.approx(value, abs=0.5), name
    assert result.num_fused == (16 if backbone == "vanillanet" else 0)
    assert 0 < result.backbone_macs < result.macs
    assert result.parameters > 1e5 and result.cpu_minutes > 0
    timing = time_fused({"it": tmp_path}, rounds=2, warmup=0)["it"]
    assert timing.rounds == 2 and timing.median > 0
