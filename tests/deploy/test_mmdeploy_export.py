"""Whole detectors: what is refused without MMDeploy, and the export where it is installed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

pytest.importorskip("onnxruntime")
pytest.importorskip("mmcv._ext")
pytest.importorskip("mmdet.models")

from mmvanilla.deploy import mmdeploy_export  # noqa: E402
from mmvanilla.deploy.mmdeploy_export import compare_detections, export_detector, require_mmdeploy  # noqa: E402


def detector_config():
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(64, 64)),
        dict(
            type="PackDetInputs",
            meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
        ),
    ]
    return Config(
        dict(
            default_scope="mmdet",
            custom_imports=dict(imports=["mmvanilla"]),
            model=dict(
                type="RetinaNet",
                data_preprocessor=dict(
                    type="DetDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3
                ),
                backbone=dict(type="VanillaNet", arch=dict(dims=(8, 16, 24), strides=(2, 2))),
                neck=dict(type="FPN", in_channels=[8, 16, 24], out_channels=8, num_outs=3),
                bbox_head=dict(
                    type="RetinaHead",
                    num_classes=2,
                    in_channels=8,
                    feat_channels=8,
                    stacked_convs=1,
                    anchor_generator=dict(
                        type="AnchorGenerator", ratios=[1.0], scales=[4], strides=[4, 8, 16]
                    ),
                ),
                test_cfg=dict(
                    nms_pre=100,
                    score_thr=0.05,
                    nms=dict(type="nms", iou_threshold=0.5),
                    max_per_img=9,
                ),
            ),
            test_dataloader=dict(dataset=dict(type="CocoDataset", pipeline=pipeline)),
        )
    )


@pytest.fixture
def detector(tmp_path):
    """A config, a checkpoint and an image that it detects things in."""
    cfg = detector_config()
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        for parameter in model.bbox_head.parameters():
            # Larger ones give scores of 1, and of equal scores each side keeps others.
            parameter.normal_(std=0.1)
        # Boxes are their anchors then, which overlap as they should.
        for parameter in model.bbox_head.retina_reg.parameters():
            parameter.zero_()
    weights = tmp_path / "det.pth"
    torch.save(
        dict(meta=dict(dataset_meta=dict(classes=("a", "b"))), state_dict=model.state_dict()),
        weights,
    )
    image = tmp_path / "image.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(image), noise)
    return cfg, model.eval(), str(weights), image


class FakeSession:
    """Gives what the detector itself finds, changed a little."""

    def __init__(self, model, samples, change):
        self.model, self.samples, self.change = model, samples, change

    def run(self, _names, feed):
        with torch.no_grad():
            found = self.model(torch.from_numpy(feed["input"]), self.samples, mode="predict")[0]
        found = found.pred_instances
        dets = torch.cat([found.bboxes, found.scores[:, None]], dim=1)[None].numpy().copy()
        labels = found.labels[None].numpy().copy()
        self.change(dets, labels)
        return dets, labels


@pytest.mark.parametrize(
    ("change", "exact", "close"),
    [
        (lambda dets, labels: None, 1.0, 1.0),
        (lambda dets, labels: np.add(dets, [0.1, 0, 0.1, 0, 0], out=dets), 0.0, 1.0),
        # Classes that no detection has: with two classes one box may be found as both.
        (lambda dets, labels: np.add(labels, 2, out=labels), 0.0, 0.0),
        (lambda dets, labels: np.add(dets, [40, 40, 40, 40, 0], out=dets), 0.0, 0.0),
    ],
)
def test_agreement_is_counted(detector, monkeypatch, change, exact, close):
    from mmvanilla.apis.images import ImageReader

    cfg, model, _, image = detector
    samples = ImageReader(model, cfg).batch(image)[1]
    monkeypatch.setattr(
        mmdeploy_export, "open_session", lambda path: FakeSession(model, samples, change)
    )
    found = compare_detections("unused", model, cfg, [image], score=0.1, tolerance=1e-4)
    assert found[2] > 0
    assert (found[0] / found[2], found[1] / found[2]) == (exact, close)


def test_refusals(detector, tmp_path):
    cfg, _, weights, image = detector
    with pytest.raises(ValueError, match=r"must be an \.onnx file"):
        export_detector(cfg, weights, tmp_path / "a.pth", [image])
    with pytest.raises(ValueError, match="expected 'mmdet'; give the config of a detector"):
        export_detector(Config(dict(default_scope="mmseg")), weights, tmp_path / "a.onnx", [image])
    (tmp_path / "a.onnx").write_text("precious")
    with pytest.raises(FileExistsError, match="exists"):
        export_detector(cfg, weights, tmp_path / "a.onnx", [image])


def test_missing_mmdeploy_names_the_remedy(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="mmdeploy")

    monkeypatch.setattr(mmdeploy_export.importlib, "import_module", missing)
    with pytest.raises(ImportError, match="pip install --no-deps mmdeploy"):
        require_mmdeploy()


def test_export_leaves_torch_as_it_was(detector, tmp_path):
    pytest.importorskip("mmdeploy.apis")
    cfg, _, weights, image = detector
    original = torch.onnx.export
    before = set(tmp_path.iterdir())
    report = export_detector(cfg, weights, tmp_path / "det.onnx", [image])
    assert report.output_names == ("dets", "labels")
    assert 0 < report.exact == report.close == report.compared
    assert torch.onnx.export is original
    assert set(tmp_path.iterdir()) - before == {tmp_path / "det.onnx"}
    import onnx

    nodes = onnx.load(str(Path(report.path))).graph.node
    assert {node.domain for node in nodes} == {""}  # no operator of MMDeploy's own
