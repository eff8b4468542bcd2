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

from mmvanilla.apis.images import ImageReader  # noqa: E402
from projects.mmdeploy import mmdeploy_export  # noqa: E402
from projects.mmdeploy.mmdeploy_export import compare_detections, export_detector, require_mmdeploy  # noqa: E402
from tests.helpers import randomise  # noqa: E402


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


def spread(layer, run, scale):
    """Let a layer's outputs lie around 0 and differ by about this much: ties are no test."""
    outputs = []
    handle = layer.register_forward_hook(lambda _layer, _args, output: outputs.append(output))
    with torch.no_grad():
        run()
        handle.remove()
        values = torch.cat([output.flatten() for output in outputs])
        layer.bias.sub_(values.mean()).mul_(scale / values.std())
        layer.weight.mul_(scale / values.std())


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
    image = tmp_path / "image.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(image), noise)
    inputs, samples = ImageReader(model.eval(), cfg).batch(image)
    spread(model.bbox_head.retina_cls, lambda: model(inputs, samples, mode="predict"), 1.0)
    weights = tmp_path / "det.pth"
    torch.save(
        dict(meta=dict(dataset_meta=dict(classes=("a", "b"))), state_dict=model.state_dict()),
        weights,
    )
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


@pytest.mark.parametrize(
    ("entry", "where"),
    [("nms", "test_cfg.nms"), ("rpn", "test_cfg.rpn.nms"), ("rcnn", "test_cfg.rcnn.nms")],
)
def test_an_nms_that_no_graph_has_is_refused(detector, tmp_path, entry, where):
    cfg, _, weights, image = detector
    soft = dict(type="soft_nms", iou_threshold=0.5)
    cfg.model.test_cfg[entry] = soft if entry == "nms" else dict(nms=soft)
    with pytest.raises(ValueError, match=f"{where}.type is 'soft_nms'.*set it to 'nms'"):
        export_detector(cfg, weights, tmp_path / "a.onnx", [image])


def rewriter_records():
    records = pytest.importorskip("mmdeploy.core").FUNCTION_REWRITER._registry._rewrite_records
    return {name: list(entries) for name, entries in records.items()}


@pytest.mark.slow
def test_export_of_a_one_stage_detector_is_exact_and_leaves_torch_as_it_was(detector, tmp_path):
    pytest.importorskip("mmdeploy.apis")
    cfg, _, weights, image = detector
    original = torch.onnx.export
    before = set(tmp_path.iterdir())
    report = export_detector(cfg, weights, tmp_path / "det.onnx", [image])
    assert report.output_names == ("dets", "labels")
    assert 0 < report.exact == report.compared
    assert torch.onnx.export is original
    assert set(tmp_path.iterdir()) - before == {tmp_path / "det.onnx"}
    import onnx

    nodes = onnx.load(str(Path(report.path))).graph.node
    assert {node.domain for node in nodes} == {""}  # no operator of MMDeploy's own


def two_stage_config(base):
    """A narrow two-stage detector of MMDetection's, for images of 64x64."""
    cfg = detector_config()
    model = Config.fromfile(
        f"{__import__('mmdet').__path__[0]}/.mim/configs/_base_/models/{base}_r50_fpn.py"
    ).model
    model.backbone = dict(type="VanillaNet", arch=dict(dims=(8, 16, 24), strides=(2, 2)))
    model.neck = dict(type="FPN", in_channels=[8, 16, 24], out_channels=8, num_outs=3)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    model.rpn_head.anchor_generator.update(scales=[4], strides=[4, 8, 16])
    for name in ("bbox_roi_extractor", "mask_roi_extractor"):
        model.roi_head[name].update(out_channels=8, featmap_strides=[4, 8])
    heads = model.roi_head.bbox_head
    for head in heads if isinstance(heads, list) else [heads]:
        head.update(in_channels=8, fc_out_channels=8, num_classes=3)
    model.roi_head.mask_head.update(in_channels=8, conv_out_channels=8, num_convs=1, num_classes=3)
    model.test_cfg.rpn.update(nms_pre=100, max_per_img=30)
    model.test_cfg.rcnn.update(max_per_img=20)
    cfg.model = model
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize(
    "base", ["mask-rcnn", pytest.param("cascade-mask-rcnn", marks=pytest.mark.exhaustive)]
)
def test_export_of_a_two_stage_detector_is_exact(base, tmp_path):
    pytest.importorskip("mmdeploy.apis")
    cfg = two_stage_config(base)
    init_default_scope("mmdet")
    model = randomise(MODELS.build(cfg.model)).eval()
    images = []
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        images.append(tmp_path / f"{seed}.png")
        cv2.imwrite(str(images[-1]), cv2.resize(pixels, (64, 64)))
    inputs, samples = ImageReader(model, cfg).batch(images[0])
    heads = model.roi_head.bbox_head
    stages = list(heads) if isinstance(heads, torch.nn.ModuleList) else [heads]
    layers = [(model.rpn_head.rpn_cls, 2.0), (model.rpn_head.rpn_reg, 0.3)]
    layers += [part for head in stages for part in ((head.fc_cls, 2.0), (head.fc_reg, 0.5))]
    for layer, scale in layers:
        spread(layer, lambda: model(inputs, samples, mode="predict"), scale)
    weights = tmp_path / "det.pth"
    torch.save(dict(meta={}, state_dict=model.state_dict()), weights)
    before = rewriter_records()
    report = export_detector(cfg, str(weights), tmp_path / "det.onnx", images)
    assert report.output_names == ("dets", "labels", "masks")
    assert 20 < report.exact == report.compared
    assert rewriter_records() == before
