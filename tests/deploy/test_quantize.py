"""int8: what becomes int8, what is measured, and what is refused."""

import importlib.util
import runpy
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime.quantization")
pytest.importorskip("mmpretrain.models")
pytest.importorskip("mmvanilla.cls_head")

from mmvanilla.datasets.shapes import make_shapes  # noqa: E402
from mmvanilla.deploy.exporting import export_model  # noqa: E402
from mmvanilla.deploy.formats import find_format  # noqa: E402
from mmvanilla.deploy.onnx_export import export_onnx  # noqa: E402
from mmvanilla.deploy.onnx_runtime import open_session  # noqa: E402
from mmvanilla.deploy.quantize import quantize_classifier  # noqa: E402
from mmvanilla.deploy.runner import Predictor  # noqa: E402
from mmvanilla.deploy.runner_metadata import describe_for_runner  # noqa: E402
from tests.helpers import ROOT  # noqa: E402


def has_openvino():
    return all(importlib.util.find_spec(name) for name in ("openvino", "nncf"))


needs_openvino = pytest.mark.skipif(not has_openvino(), reason="openvino or nncf is not installed")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A config with data, and an untrained classifier of it in ONNX."""
    folder = tmp_path_factory.mktemp("quantize")
    make_shapes(folder, layouts=("imagenet",), num_train=12, num_val=12, image_size=64)
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=64),
        dict(type="PackInputs"),
    ]

    def loader(split):
        dataset = dict(
            type="CustomDataset", data_root=str(folder / "imagenet" / split), pipeline=pipeline
        )
        return dict(batch_size=1, dataset=dataset)

    model = dict(
        type="ImageClassifier",
        backbone=dict(
            type="VanillaNet", arch=dict(dims=(8, 16, 24, 32), strides=(2, 2, 2)), out_indices=(3,)
        ),
        head=dict(type="VanillaNetClsHead", num_classes=6, in_channels=32),
    )
    cfg = Config(
        dict(
            default_scope="mmpretrain",
            custom_imports=dict(imports=["mmvanilla", "mmvanilla.cls_head"]),
            data_preprocessor=dict(num_classes=6, mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True),
            model=model,
            train_dataloader=loader("train"),
            test_dataloader=loader("val"),
        )
    )
    init_default_scope("mmpretrain")
    torch.manual_seed(0)
    net = MODELS.build(model).eval()
    net.data_preprocessor = MODELS.build(dict(cfg.data_preprocessor, type="ClsDataPreprocessor"))
    described = describe_for_runner(net, cfg, dict(dataset_meta=dict(classes=list("abcdef"))))
    export_onnx(net, folder / "net.onnx", size=(64, 64), metadata=described)
    if has_openvino():
        export_model(
            net, folder / "net.xml", find_format("net.xml"), size=(64, 64), metadata=described
        )
    cfg.dump(str(folder / "cfg.py"))
    return cfg, folder / "net.onnx"


def int8_convolutions(path):
    """How many convolutions have their weight in int8, by whether they are depthwise."""
    graph = onnx.load(str(path)).graph
    int8 = {
        tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8
    }
    dequantised = {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in int8
    }
    counts = {True: 0, False: 0}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in dequantised:
            groups = next((item.i for item in node.attribute if item.name == "group"), 1)
            counts[groups > 1] += 1
    return counts


def scales_of_a_weight(path):
    graph = onnx.load(str(path)).graph
    sizes = [
        tensor.dims[0]
        for tensor in graph.initializer
        if tensor.name.endswith("_scale") and tensor.dims
    ]
    return max(sizes, default=1)


def test_all_layers_become_int8_with_a_scale_for_each_channel(exported, tmp_path):
    cfg, path = exported
    out = tmp_path / "int8.onnx"
    forms = quantize_classifier(cfg, path, out, calibration_images=4, rounds=2)
    assert int8_convolutions(out) == {True: 4, False: 5}
    assert scales_of_a_weight(out) == 32
    assert [form.name for form in forms] == ["fp32", "int8"]
    assert (forms[0].agreement, forms[0].logit_error) == (100, 0)
    assert 0 < forms[1].logit_error < 100
    assert 0 <= forms[1].accuracy <= 100 and forms[1].latency.median > 0
    assert list(tmp_path.iterdir()) == [out]


@needs_openvino
def test_openvino_gets_int8_weights_and_activations(exported, tmp_path):
    import openvino

    cfg, path = exported
    out = tmp_path / "int8.xml"
    forms = quantize_classifier(cfg, path.with_suffix(".xml"), out, calibration_images=4, rounds=2)
    operators = openvino.Core().read_model(str(out)).get_ordered_ops()
    kinds = [operator.get_type_name() for operator in operators]
    weights = [
        operator
        for operator in operators
        if operator.get_type_name() == "Constant"
        and operator.get_element_type() == openvino.Type.i8
    ]
    # Five convolutions and four depthwise ones, all with a quantised input.
    assert len(weights) == 9 and kinds.count("FakeQuantize") >= 9
    assert [form.name for form in forms] == ["fp32", "int8"]
    assert (forms[0].agreement, forms[0].logit_error) == (100, 0)
    assert 0 < forms[1].logit_error < 100
    assert sorted(tmp_path.iterdir()) == [tmp_path / "int8.bin", out]
    assert forms[1].size_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".xml", marks=needs_openvino)])
def test_a_quantised_file_still_knows_its_images_and_classes(exported, tmp_path, suffix):
    cfg, path = exported
    out = tmp_path / f"int8{suffix}"
    quantize_classifier(cfg, path.with_suffix(suffix), out, calibration_images=4, rounds=2)
    (image, *_) = sorted((path.parent / "imagenet" / "val").rglob("*.*"))
    full, small = Predictor(path), Predictor(out)
    expected, found = full(full.read(image)), small(small.read(image))
    assert found["pred_class"] in "abcdef"
    np.testing.assert_allclose(found["pred_scores"], expected["pred_scores"], atol=0.1)


def test_accuracy_is_that_of_the_model(exported, tmp_path):
    cfg, path = exported
    forms = quantize_classifier(cfg, path, tmp_path / "a.onnx", calibration_images=4, rounds=2)
    session = open_session(path)
    hits = []
    for label, folder in enumerate(sorted((path.parent / "imagenet" / "val").iterdir())):
        for file in folder.iterdir():
            image = (cv2.imread(str(file))[None, ..., ::-1].transpose(0, 3, 1, 2) - 120.0) / 60.0
            scores = session.run(None, {"input": np.ascontiguousarray(image, np.float32)})[0]
            hits.append(int(scores.argmax()) == label)
    assert len(hits) == 12
    assert forms[0].accuracy == pytest.approx(100 * np.mean(hits))
    assert forms[0].size_bytes == path.stat().st_size


def test_refusals(exported, tmp_path):
    cfg, path = exported
    out = tmp_path / "out.onnx"
    for count in (0, -1):
        with pytest.raises(ValueError, match="calibration_images must be at least 1"):
            quantize_classifier(cfg, path, out, calibration_images=count)
        with pytest.raises(ValueError, match="test_images must be at least 1"):
            quantize_classifier(cfg, path, out, test_images=count)
    with pytest.raises(ValueError, match="is also an input"):
        quantize_classifier(cfg, path, path, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"no model at .*write one with `.*export"):
        quantize_classifier(cfg, tmp_path / "no.onnx", out)
    with pytest.raises(ValueError, match=r"no int8 form here; give a file .* \.onnx or \.xml"):
        quantize_classifier(cfg, path.parent / "cfg.py", out)
    with pytest.raises(ValueError, match=r"must be an \.onnx file"):
        quantize_classifier(cfg, path, tmp_path / "out.pth")
    other = Config(dict(default_scope="mmdet"))
    with pytest.raises(ValueError, match="only classifiers can be quantised"):
        quantize_classifier(other, path, out)
    out.write_text("precious")
    with pytest.raises(FileExistsError, match="exists"):
        quantize_classifier(cfg, path, out)
    assert out.read_text() == "precious"
    assert [file.name for file in tmp_path.iterdir()] == ["out.onnx"]


def test_tool(exported, tmp_path, monkeypatch, capsys):
    cfg, path = exported
    config = path.parent / "cfg.py"
    arguments = ["quantize_onnx.py", config, path, tmp_path / "a.onnx", "--calibration-images", 2]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    tool = str(ROOT / "tools" / "quantize_onnx.py")
    runpy.run_path(tool, run_name="__main__")
    shown = capsys.readouterr().out
    assert "int8" in shown and "fp32" in shown and "written:" in shown
    with pytest.raises(SystemExit) as failure:
        runpy.run_path(tool, run_name="__main__")
    assert failure.value.code == 1
    assert capsys.readouterr().err.startswith("error: ")
