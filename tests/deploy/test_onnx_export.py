"""Export: what is in the file, that it computes the same, and that nothing else is ever written."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmvanilla import VanillaNet
from mmvanilla.deploy.exportable import SizeFreeAvgPool, equal_max_pool, make_exportable
from mmvanilla.deploy.exporting import check_out
from mmvanilla.deploy.onnx_export import export_onnx, put_pooling_last
from mmvanilla.deploy.onnx_runtime import open_onnx, open_session
from mmvanilla.deploy.verification import compare_with_torch
from tests.helpers import ROOT

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

TINY = dict(dims=(8, 16, 24, 32, 32), strides=(2, 2, 2, 1))
ADAPTIVE = dict(
    dims=(8, 16, 32),
    strides=(2, 2),
    adaptive_pools=(5, 3),
    stem_stride=3,
    stem_padding=1,
    input_size=26,
)


def randomize(model):
    """Weights and statistics that a fuse which forgot something would not survive."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            elif tensor.is_floating_point() and tensor.dim() > 0:
                spread = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 0.3
                tensor.normal_(std=spread, generator=generator)
    return model.eval()


def build_backbone(arch=TINY, **kwargs):
    return randomize(VanillaNet(arch, **kwargs))


def build_classifier():
    pytest.importorskip("mmpretrain.models")
    pytest.importorskip("mmvanilla.cls_head")
    init_default_scope("mmpretrain")
    cfg = dict(
        type="ImageClassifier",
        backbone=dict(type="VanillaNet", arch=TINY, out_indices=(3,)),
        head=dict(type="VanillaNetClsHead", in_channels=32, num_classes=5),
        data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True),
    )
    return randomize(MODELS.build(cfg))


def build_segmenter():
    pytest.importorskip("mmseg.models")
    init_default_scope("mmseg")
    cfg = dict(
        type="EncoderDecoder",
        data_preprocessor=dict(type="SegDataPreProcessor"),
        backbone=dict(type="VanillaNet", arch=TINY),
        decode_head=dict(
            type="UPerHead",
            in_channels=[8, 16, 24, 32],
            in_index=[0, 1, 2, 3],
            pool_scales=(1, 2, 3, 6),
            channels=8,
            num_classes=4,
            norm_cfg=dict(type="BN"),
            align_corners=False,
            loss_decode=dict(type="CrossEntropyLoss"),
        ),
        test_cfg=dict(mode="whole"),
    )
    return randomize(MODELS.build(cfg))


def build_detector():
    pytest.importorskip("mmcv._ext")
    pytest.importorskip("mmdet.models")
    init_default_scope("mmdet")
    cfg = dict(
        type="RetinaNet",
        backbone=dict(type="VanillaNet", arch=TINY),
        neck=dict(type="FPN", in_channels=[8, 16, 24, 32], out_channels=8, num_outs=5),
        bbox_head=dict(
            type="RetinaHead",
            num_classes=3,
            in_channels=8,
            feat_channels=8,
            anchor_generator=dict(
                type="AnchorGenerator", ratios=[1.0], scales=[8], strides=[4, 8, 16, 32, 64]
            ),
        ),
    )
    return randomize(MODELS.build(cfg))


def test_fused_backbone_is_convolutions_pools_and_relus_alone(tmp_path):
    report = export_onnx(build_backbone(), tmp_path / "net.onnx", size=(64, 64))
    # A stem and four blocks, two convolutions and one ReLU each; three blocks pool.
    assert report.node_counts == {"Conv": 10, "Relu": 5, "MaxPool": 3}
    assert report.output_names == ("level0", "level1", "level2", "level3")
    assert report.dynamic
    assert report.max_difference < 1e-5
    assert report.size_bytes == (tmp_path / "net.onnx").stat().st_size


def test_classifier_adds_its_pooling_and_one_convolution(tmp_path):
    report = export_onnx(build_classifier(), tmp_path / "net.onnx", size=(64, 64))
    assert report.part == "classifier"
    counts = dict(report.node_counts)
    assert (counts.pop("Conv"), counts.pop("Relu"), counts.pop("MaxPool")) == (11, 5, 3)
    # The head's global average pooling, and from (N, K, 1, 1) to (N, K).
    pooling = {"ReduceMean", "GlobalAveragePool"}
    assert sum(counts.pop(name, 0) for name in pooling) == 1
    assert set(counts) <= {"Flatten"} and sum(counts.values()) <= 1


def test_max_pooling_comes_behind_relu(tmp_path):
    """Behind the pooling, ReLU would keep it from int8."""
    export_onnx(build_backbone(), tmp_path / "net.onnx", size=(64, 64))
    nodes = onnx.load(str(tmp_path / "net.onnx")).graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    assert {makers[node.input[0]] for node in nodes if node.op_type == "MaxPool"} == {"Relu"}
    assert {makers[node.input[0]] for node in nodes if node.op_type == "Relu"} == {"Conv"}


@pytest.mark.parametrize(
    ("lines", "exchanged"),
    [
        # One ReLU behind each pooling, also in a chain.
        ("p = MaxPool<kernel_shape=[2,2]>(x) out = Relu(p)", 1),
        (
            "p = MaxPool<kernel_shape=[2,2]>(x) r = Relu(p) "
            "q = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(r) out = Relu(q)",
            2,
        ),
        # Somebody else takes what is pooled, or knows its places.
        ("p = MaxPool<kernel_shape=[2,2]>(x) r = Relu(p) out = Add(p, r)", 0),
        ("p, i = MaxPool<kernel_shape=[2,2]>(x) out = Relu(p)", 0),
        # ReLU does not alone decide, or something stands between.
        ("p = MaxPool<kernel_shape=[2,2]>(x) s = Neg(p) out = Relu(s)", 0),
        ("p = AveragePool<kernel_shape=[2,2]>(x) out = Relu(p)", 0),
        ("p = MaxPool<kernel_shape=[2,2]>(x) out = LeakyRelu(p)", 0),
        # Two ReLUs take it.
        ("p = MaxPool<kernel_shape=[2,2]>(x) r = Relu(p) s = Relu(p) out = Add(r, s)", 0),
    ],
)
def test_pooling_and_relu_are_exchanged_only_alone(lines, exchanged):
    from onnx.reference import ReferenceEvaluator

    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[1,2,6,6] x) => (float[1,2,H,W] out)'
    graph = onnx.parser.parse_model(f"{head} {{ {lines} }}")
    images = np.random.default_rng(0).standard_normal((1, 2, 6, 6)).astype(np.float32)

    def run():
        onnx.checker.check_model(graph)
        return ReferenceEvaluator(graph).run(None, {"x": images})[0]

    before = run()
    assert put_pooling_last(graph) == exchanged
    np.testing.assert_array_equal(run(), before)


def test_softmax_gives_probabilities(tmp_path):
    model = build_classifier()
    report = export_onnx(model, tmp_path / "net.onnx", size=(64, 64), softmax=True)
    images = torch.randn(2, 3, 64, 64)
    (found,) = open_session(report.path).run(None, {"input": images.numpy()})
    with torch.no_grad():
        expected = model(images, mode="tensor").softmax(dim=1)
    assert report.output_names == ("probabilities",)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("full_size", [False, True])
def test_segmenter_with_pyramid_pooling_serves_any_size(tmp_path, full_size):
    model = build_segmenter()
    report = export_onnx(model, tmp_path / "net.onnx", size=(96, 96), full_size=full_size)
    assert report.part == "segmenter"
    images = torch.randn(1, 3, 75, 170)
    (found,) = open_session(report.path).run(None, {"input": images.numpy()})
    assert found.shape == ((1, 4, 75, 170) if full_size else (1, 4, 18, 42))
    with torch.no_grad():
        expected = model(images, mode="tensor")
        if full_size:
            expected = nn.functional.interpolate(expected, size=(75, 170), mode="bilinear")
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-4)


def test_detector_gives_its_backbone(tmp_path):
    model = build_detector()
    report = export_onnx(model, tmp_path / "net.onnx", size=(64, 64))
    assert (report.part, len(report.output_names)) == ("backbone", 4)
    images = torch.randn(1, 3, 100, 70)
    found = open_session(report.path).run(None, {"input": images.numpy()})
    with torch.no_grad():
        for ours, theirs in zip(model.backbone(images), found, strict=True):
            torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-3, atol=1e-5)


def test_the_model_given_stays_unfused(tmp_path):
    model = build_backbone()
    export_onnx(model, tmp_path / "net.onnx", size=(64, 64))
    assert not model.deploy


def test_fixed_size(tmp_path):
    report = export_onnx(build_backbone(), tmp_path / "net.onnx", size=(64, 96), dynamic=False)
    dims = onnx.load(str(report.path)).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [0, 3, 64, 96]
    assert {shape[2:] for shape in report.compared_shapes} == {(64, 96)}
    assert {shape[0] for shape in report.compared_shapes} == {1, 3}


def test_adaptive_arch_takes_its_one_size_by_itself(tmp_path):
    report = export_onnx(build_backbone(ADAPTIVE), tmp_path / "net.onnx", size=(64, 64))
    assert not report.dynamic
    assert {shape[2:] for shape in report.compared_shapes} == {(26, 26)}
    assert set(report.node_counts) == {"Conv", "Relu", "MaxPool"}


def test_metadata_says_what_is_not_in_the_graph(tmp_path):
    report = export_onnx(
        build_classifier(), tmp_path / "net.onnx", size=(64, 64), metadata={"config": "some.py"}
    )
    entries = {entry.key: entry.value for entry in onnx.load(str(report.path)).metadata_props}
    preprocessing = json.loads(entries["preprocessing"])
    assert preprocessing["inside_graph"] is False
    assert preprocessing["channel_order"] == "RGB"
    assert preprocessing["mean"] == [1.0, 2.0, 3.0]
    assert preprocessing["std"] == [4.0, 5.0, 6.0]
    assert entries["config"] == "some.py"
    assert entries["input_size"] == "any"


def test_dynamo_exporter_agrees_too(tmp_path):
    pytest.importorskip("onnxscript")
    if not hasattr(torch.export, "Dim") or not hasattr(torch.export.Dim, "DYNAMIC"):
        pytest.skip("this torch has no such exporter")
    report = export_onnx(build_backbone(), tmp_path / "net.onnx", size=(64, 64), exporter="dynamo")
    assert report.node_counts == {"Conv": 10, "Relu": 5, "MaxPool": 3}
    assert report.dynamic


@pytest.mark.parametrize("size", [(3, 3), (7, 11), (5, 2), (1, 9)])
@pytest.mark.parametrize("output_size", [(2, 2), (3, 6), (6, 6)])
def test_size_free_pooling_is_adaptive_pooling(size, output_size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = nn.AdaptiveAvgPool2d(output_size)(x)
    torch.testing.assert_close(SizeFreeAvgPool(output_size)(x), expected)


@pytest.mark.parametrize(("size", "output_size"), [(75, 38), (38, 19), (19, 10), (9, 3), (8, 8)])
def test_equal_max_pool_is_adaptive_pooling(size, output_size):
    x = torch.randn(1, 2, size, size)
    expected = nn.AdaptiveMaxPool2d(output_size)(x)
    torch.testing.assert_close(equal_max_pool(size, output_size)(x), expected, rtol=0, atol=0)


def test_uneven_adaptive_pooling_is_refused():
    with pytest.raises(ValueError, match="uneven steps"):
        equal_max_pool(11, 7)


def test_disagreement_is_measured(tmp_path):
    model = build_backbone()
    report = export_onnx(model, tmp_path / "net.onnx", size=(64, 64))
    other = make_exportable(model)
    with torch.no_grad():
        other.module.model.blocks[0].conv.weight.mul_(1.5)
    run, shapes = open_onnx(report.path), report.compared_shapes
    assert compare_with_torch(run, other.module, shapes, "ONNX Runtime") > 1e-3


def test_disagreement_writes_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="nothing was written"):
        export_onnx(build_backbone(), tmp_path / "net.onnx", size=(64, 64), tolerance=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_nan_is_a_disagreement(tmp_path):
    model = build_backbone()
    with torch.no_grad():
        model.blocks[-1].act.conv.conv.weight.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="holds NaN.*nothing was written; check for NaN"):
        export_onnx(model, tmp_path / "net.onnx", size=(64, 64))
    assert list(tmp_path.iterdir()) == []


def test_refusals(tmp_path):
    model = build_backbone()
    out = tmp_path / "net.onnx"
    with pytest.raises(ValueError, match="must be an .onnx file"):
        export_onnx(model, tmp_path / "net.pth")
    with pytest.raises(FileNotFoundError, match="no folder"):
        export_onnx(model, tmp_path / "nowhere" / "net.onnx")
    with pytest.raises(ValueError, match="softmax works for classifiers"):
        export_onnx(model, out, softmax=True)
    with pytest.raises(ValueError, match="full_size works for segmenters"):
        export_onnx(model, out, full_size=True)
    with pytest.raises(ValueError, match="height and width must be at least 1"):
        export_onnx(model, out, size=(0, 64))
    with pytest.raises(ValueError, match="is also an input"):
        check_out(
            out, ".onnx", overwrite=True, inputs=[tmp_path / ".." / tmp_path.name / "net.onnx"]
        )
    with pytest.raises(ValueError, match="VanillaNet is not a segmenter; choose backbone"):
        export_onnx(model, out, part="segmenter")
    with pytest.raises(ValueError, match="unknown exporter 'magic'; choose from torchscript"):
        export_onnx(model, out, exporter="magic")
    with pytest.raises(RuntimeError, match="training mode"):
        export_onnx(build_backbone().train(), out)
    model.blocks[0].conv.act.act_lambda = 0.5
    with pytest.raises(RuntimeError, match="λ = 0.5"):
        export_onnx(model, out)
    assert list(tmp_path.iterdir()) == []
    out.write_text("precious")
    with pytest.raises(FileExistsError, match="exists"):
        export_onnx(build_backbone(), out)
    assert out.read_text() == "precious"


CONFIG = f"""
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmvanilla', 'mmvanilla.cls_head'])
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VanillaNet', arch={TINY}, out_indices=(3,)),
    head=dict(type='VanillaNetClsHead', in_channels=32, num_classes=5))
data_preprocessor = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True)
"""


def run_tool(*args):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "export_onnx.py"), *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.exhaustive
def test_tool_exports_a_checkpoint_and_refuses_a_wrong_one(tmp_path):
    model = build_classifier()
    config, weights, out = (tmp_path / name for name in ("cls.py", "cls.pth", "cls.onnx"))
    config.write_text(CONFIG)
    meta = dict(dataset_meta=dict(classes=["a", "b", "c", "d", "e"]))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), weights)
    done = run_tool(config, weights, out, "--size", 64, 64)  # the old name of --shape
    assert "--shape" in done.stderr
    assert done.returncode == 0, done.stderr
    assert "classifier" in done.stdout and "11 Conv" in done.stdout
    entries = {entry.key: entry.value for entry in onnx.load(str(out)).metadata_props}
    assert json.loads(entries["classes"]) == ["a", "b", "c", "d", "e"]
    assert json.loads(entries["preprocessing"])["mean"] == [1.0, 2.0, 3.0]

    torch.save(dict(state_dict={"backbone.stem.conv.bias": torch.zeros(8)}), weights)
    failed = run_tool(config, weights, tmp_path / "other.onnx", "--shape", 64, 64)
    assert failed.returncode != 0
    early = run_tool(config, tmp_path / "no.pth", tmp_path / "nowhere" / "other.onnx")
    assert "no folder" in early.stderr.splitlines()[-1]  # said before anything is loaded
    # What imports say may stand before it, but no traceback.
    assert failed.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "other.onnx").exists()
