"""The metafiles, against our own counts, the table of variants and the authors' files."""

from pathlib import Path

import pytest
import yaml

from mmvanilla.apis.complexity import count_config
from mmvanilla.apis.config import load_config
from mmvanilla.checkpoints.zoo import PUBLISHED, RELEASE_URL
from mmvanilla.models.archs import ARCHS
from tests.helpers import CONFIGS, ROOT

INDEX = ROOT / "model-index.yml"
# The paper's accuracies (arXiv 2305.12972), as README.md has them.
_FIGURES = (72.49, 76.36, 77.98, 79.13, 79.87, 80.57, 81.08, 81.55, 82.05, 82.53, 83.11)
TOP1 = dict(zip(ARCHS, _FIGURES, strict=True))
AP = {
    "mask-rcnn_vanillanet-13_fpn_1x_coco": {"box AP": 44.3, "mask AP": 40.1},
    "retinanet_vanillanet-13_fpn_1x_coco": {"box AP": 43.0},
}


def read_models():
    models = []
    for name in yaml.safe_load(INDEX.read_text(encoding="utf-8"))["Import"]:
        models += yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))["Models"]
    return {model["Name"]: model for model in models}


MODELS = read_models()


def test_every_published_model_is_there():
    assert set(MODELS) == {f"vanillanet-{name}_in1k" for name in ARCHS} | set(AP)
    files = {f"{RELEASE_URL}/{PUBLISHED[name].file}" for name in PUBLISHED if name != "13-act4"}
    assert {model["Weights"] for model in MODELS.values()} == files
    named = set(yaml.safe_load(INDEX.read_text(encoding="utf-8"))["Import"])
    assert named == {path.relative_to(ROOT).as_posix() for path in CONFIGS.rglob("metafile.yml")}
    for name in named:
        (collection,) = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))["Collections"]
        said = "published by the authors, not measured by this project"
        assert collection["Metadata"]["Metrics"] == said


def test_published_metrics():
    found = {
        name: {key: x for result in model["Results"] for key, x in result["Metrics"].items()}
        for name, model in MODELS.items()
    }
    top1 = {f"vanillanet-{name}_in1k": {"Top 1 Accuracy": value} for name, value in TOP1.items()}
    assert found == top1 | AP
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, value in TOP1.items():
        (row,) = (line for line in readme.splitlines() if line.startswith(f'| `"{name}"` |'))
        assert row.endswith(f"| {value:.2f} |")


@pytest.mark.parametrize("name", MODELS)
def test_config_weights_and_counts_belong_together(name):
    model = MODELS[name]
    path = ROOT / model["Config"]
    if "coco" in name:
        pytest.importorskip("mmdet")
        size, key = (800, 1280), "mask-rcnn-13" if "mask" in name else "retinanet-13"
    else:
        pytest.importorskip("mmpretrain")
        size, key = (224, 224), name.removeprefix("vanillanet-").removesuffix("_in1k")
    cfg = load_config(str(path))
    published = PUBLISHED[key]
    assert Path(model["Weights"]).name == published.file
    assert cfg.model.backbone.arch == published.arch
    assert cfg.model.backbone.get("act_num", 3) == published.act_num
    counts, _ = count_config(cfg, size)
    whole = {form: (params, macs) for form, part, params, macs in counts if part == "whole model"}
    metadata = model["Metadata"]
    assert (metadata["Parameters"], metadata["FLOPs"]) == whole["deploy"]
    assert metadata["Training Parameters"] == whole["training"][0]
