"""A whole instance segmenter as one ONNX file, compared on both sides."""

import sys

import pytest
import torch

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model
from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import randomise

pytestmark = [pytest.mark.exhaustive, pytest.mark.toolbox("mmdet")]
CONFIG = "shapes/maskrcnn_vanillanet_shapes.py"


def test_a_detector_with_masks_detects_the_same_in_onnx_runtime(tmp_path, monkeypatch, capfd):
    pytest.importorskip("mmdeploy.apis")
    if sys.version_info >= (3, 13):
        pytest.skip("MMDeploy cannot export on Python 3.13")
    onnx = pytest.importorskip("onnx")
    from projects.mmdeploy import test as tool
    from projects.mmdeploy.mmdeploy_export import REQUIRED_AGREEMENT, export_detector

    monkeypatch.chdir(tmp_path)
    cfg = load_config(CONFIG)
    model = randomise(build_model(cfg))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / "model.pth")
    make_shapes("data/shapes", layouts=("coco",), num_train=1, num_val=2, image_size=64)
    images = sorted((tmp_path / "data" / "shapes" / "coco" / "val").iterdir())
    out = tmp_path / "detector.onnx"
    report = export_detector(cfg, str(tmp_path / "model.pth"), out, images, score=0.05)
    assert report.compared and report.exact >= REQUIRED_AGREEMENT * report.compared
    graph = onnx.load(str(out)).graph
    assert [output.name for output in graph.output] == ["dets", "labels", "masks"]
    for output in graph.output:
        axes = [dim.dim_param for dim in output.type.tensor_type.shape.dim if dim.dim_param]
        assert len(set(axes)) == len(axes), f"{output.name} names two axes alike: {axes}"
    single = ("num_workers=0", "persistent_workers=False")
    options = [f"{split}_dataloader.{each}" for split in ("val", "test") for each in single]
    assert tool.main([CONFIG, str(out), "--cfg-options", *options]) == 0
    assert "coco/segm_mAP" in "".join(capfd.readouterr())
