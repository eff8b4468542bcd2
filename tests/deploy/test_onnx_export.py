"""ONNX: what is in the graph, and what is refused."""

from collections import Counter

import pytest
import torch
from torch import nn

from mmvanilla.deploy.exportable import HalvingPool, SizeFreeAvgPool
from mmvanilla.deploy.exporting import export_model
from mmvanilla.deploy.formats import find_format
from tests.deploy.export_models import build_backbone, build_classifier, build_detector

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def export(model, folder, **options):
    """Export to a file in a folder; its graph and the report."""
    out = folder / "net.onnx"
    report = export_model(model, out, find_format(out), size=(64, 64), **options)
    return onnx.load(str(out)).graph, report


def test_fused_backbone_is_convolutions_pools_and_relus_alone(tmp_path):
    graph, report = export(build_backbone(), tmp_path)
    # A stem and four blocks, two convolutions and one ReLU each; three blocks pool.
    assert Counter(node.op_type for node in graph.node) == dict(Conv=10, Relu=5, MaxPool=3)
    assert report.metadata["outputs"] == "level0,level1,level2,level3"
    assert report.metadata["input_size"] == "any" and report.max_difference < 1e-5
    # Behind the pooling, ReLU would keep it from int8.
    makers = {name: node.op_type for node in graph.node for name in node.output}
    assert {makers[node.input[0]] for node in graph.node if node.op_type == "MaxPool"} == {"Relu"}
    assert {makers[node.input[0]] for node in graph.node if node.op_type == "Relu"} == {"Conv"}


def test_classifier_adds_its_pooling_and_one_convolution(tmp_path):
    graph, _ = export(build_classifier(), tmp_path)
    counts = Counter(node.op_type for node in graph.node)
    assert (counts.pop("Conv"), counts.pop("Relu"), counts.pop("MaxPool")) == (11, 5, 3)
    assert sum(counts.pop(name, 0) for name in ("ReduceMean", "GlobalAveragePool")) == 1
    assert set(counts) <= {"Flatten"} and sum(counts.values()) <= 1


def test_detector_gives_its_backbone(tmp_path):
    model = build_detector()
    _, report = export(model, tmp_path)
    assert report.metadata["part"] == "backbone" and report.max_difference < 1e-4
    assert len(report.metadata["outputs"].split(",")) == len(model.backbone.out_indices)


def test_fixed_size(tmp_path):
    graph, report = export(build_backbone(), tmp_path, dynamic=False)
    dims = graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [0, 3, 64, 64]
    assert report.compared_shapes == [(1, 3, 64, 64), (3, 3, 64, 64)]


@pytest.mark.parametrize("size", [(3, 3), (7, 11), (5, 2), (1, 9)])
@pytest.mark.parametrize("output_size", [(2, 2), (3, 6), (6, 6)])
def test_size_free_pooling_is_adaptive_pooling(size, output_size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = nn.AdaptiveAvgPool2d(output_size)(x)
    torch.testing.assert_close(SizeFreeAvgPool(output_size)(x), expected)


@pytest.mark.parametrize(("size", "output_size"), [(75, 38), (38, 19), (19, 10), (10, 5)])
def test_halving_pool_is_adaptive_pooling(size, output_size):
    x = torch.randn(1, 2, size, size)
    expected = nn.AdaptiveMaxPool2d(output_size)(x)
    torch.testing.assert_close(HalvingPool(output_size)(x), expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="no file can pool adaptively from"):
        HalvingPool(output_size - 1)(x)


class OwnScores(nn.Module):
    """A head that predicts something else than softmax or sigmoid of its logits."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, feats):
        return self.head(feats)

    def predict(self, feats, data_samples=None):
        samples = self.head.predict(feats, data_samples)
        return [sample.set_pred_score(sample.pred_score**2) for sample in samples]


def test_refusals(tmp_path):
    model = build_backbone()
    with pytest.raises(ValueError, match="softmax works for classifiers"):
        export(model, tmp_path, softmax=True)
    with pytest.raises(ValueError, match="VanillaNet is not a segmenter; choose backbone"):
        export(model, tmp_path, part="segmenter")
    with pytest.raises(RuntimeError, match="training mode"):
        export(build_backbone().train(), tmp_path)
    model.blocks[0].conv.act.act_lambda = 0.5
    with pytest.raises(RuntimeError, match="λ = 0.5"):
        export(model, tmp_path)
    own = build_classifier()
    own.head = OwnScores(own.head)
    with pytest.raises(ValueError, match="OwnScores predicts neither softmax nor sigmoid"):
        export(own, tmp_path, softmax=True)
    assert list(tmp_path.iterdir()) == []
    export(own, tmp_path)  # its logits are its logits
