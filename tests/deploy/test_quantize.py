"""int8: what becomes int8, what is measured, and what is refused."""

import copy
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime.quantization")
pytest.importorskip("mmpretrain.models")
pytest.importorskip("mmvanilla.cls_head")

from mmvanilla.apis.model import build_model  # noqa: E402
from mmvanilla.datasets.shapes import make_shapes  # noqa: E402
from mmvanilla.deploy.accuracy import Samples, measure_forms  # noqa: E402
from mmvanilla.deploy.exporting import export_model  # noqa: E402
from mmvanilla.deploy.formats import find_format  # noqa: E402
from mmvanilla.deploy.quantize import open_form, quantize_classifier  # noqa: E402
from mmvanilla.deploy.runner import Predictor  # noqa: E402
from mmvanilla.deploy.runner_metadata import describe_for_runner  # noqa: E402
from tests.deploy.runner_models import META, classifier_config  # noqa: E402
from tests.helpers import randomise  # noqa: E402

NEEDED = {
    ".onnx": (),
    ".xml": ("openvino", "nncf"),
    ".tflite": ("litert_torch", "ai_edge_quantizer"),
    ".pte": ("executorch", "torchao"),
}
SUFFIXES = [
    suffix
    if all(map(importlib.util.find_spec, names))
    else pytest.param(suffix, marks=pytest.mark.skip(f"{' or '.join(names)} is not installed"))
    for suffix, names in NEEDED.items()
]
# After int8 files were open, closed in the order of opening, a signal still comes to Python.
SIGNAL = """
import gc, pathlib, signal, sys
from mmvanilla.deploy.runner_runtimes import RUNTIMES
path = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGUSR1, lambda *_: print("alive"))
opened = [RUNTIMES[path.suffix][0](path) for _ in range(2)]
while opened:
    del opened[0]
    gc.collect()
signal.raise_signal(signal.SIGUSR1)
"""
#: The suffix of the fp32 file of which each is made.
SOURCES = {suffix: ".pt2" if suffix == ".pte" else suffix for suffix in NEEDED}
FEW = dict(calibration_images=4, rounds=2, max_drop=100)


def make_config(folder):
    """A config of a classifier whose labels are in one file for each split."""
    cfg = classifier_config([])
    pipeline = cfg.test_dataloader.dataset.pipeline
    for loader, split in dict(train_dataloader="train", test_dataloader="val").items():
        files = dict(data_root=str(folder / "imagenet"), ann_file=f"../{split}.txt")
        cfg[loader].dataset = dict(type="CustomDataset", pipeline=pipeline, **files)
    cfg.model.backbone.update(act_num=3, deploy=True)
    cfg.model.head.deploy = True
    return cfg


def export(net, cfg, path, softmax=False, **options):
    options["metadata"] = describe_for_runner(net, cfg, dict(dataset_meta=META), None, softmax)
    export_model(net, path, find_format(path), size=(64, 64), softmax=softmax, **options)


def with_one_large_channel(net):
    """The same function, but one channel whose range leaves no steps to the others."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        for block in (net.backbone.stem, *net.backbone.blocks):
            block.conv.weight[0] *= 3e3
            block.conv.bias[0] *= 3e3
            block.act.conv.weight[0] /= 3e3
    return net


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A config, and its classifier in ONNX and OpenVINO, right on each test image."""
    folder = tmp_path_factory.mktemp("quantize")
    make_shapes(folder, layouts=("imagenet",), num_train=12, num_val=12, image_size=64)
    cfg = make_config(folder)
    net = randomise(build_model(cfg), seed=1).eval()
    images = {}
    for split in ("train", "val"):
        files = sorted((folder / "imagenet" / split).rglob("*.*"))
        images[split] = [str(file.relative_to(folder / "imagenet")) for file in files]
        text = "\n".join(f"{name} {index % 6}" for index, name in enumerate(images[split]))
        (folder / f"{split}.txt").write_text(text)
    with torch.no_grad():
        # Centred, since a random network prefers one class.
        inputs = [torch.from_numpy(image) for image in Samples(cfg, "test", None).images()]
        logits = torch.cat([net(image) for image in inputs])
        classifier = [m for m in net.head.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        classifier.bias -= logits.mean(0)
        labels = (logits - logits.mean(0)).argmax(1).tolist()
    assert len(set(labels)) > 2
    lines = [f"{name} {label}" for name, label in zip(images["val"], labels, strict=True)]
    (folder / "val.txt").write_text("\n".join(lines))
    for suffix, names in NEEDED.items():
        if all(map(importlib.util.find_spec, names)):
            export(net, cfg, folder / f"net{SOURCES[suffix]}")
    cfg.dump(str(folder / "cfg.py"))
    return cfg, folder / "net.onnx", net


def test_images_are_those_of_the_model_and_of_wrapped_data_sets(exported):
    cfg = copy.deepcopy(exported[0])
    expected = next(Samples(cfg, "train", 1).images())
    cfg.model.data_preprocessor = cfg.pop("data_preprocessor")
    wrapped = dict(type="RepeatDataset", times=2, dataset=cfg.train_dataloader.dataset)
    cfg.train_dataloader = dict(dataset=wrapped)
    np.testing.assert_array_equal(next(Samples(cfg, "train", 1).images()), expected)


def int8_weights(path):
    """The numbers of int8 weights, and of scales of each, in an ONNX file."""
    graph = onnx.load(str(path)).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    scales = [
        max([1, *tensors[node.input[1]].dims])
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in tensors
        and tensors[node.input[0]].data_type == onnx.TensorProto.INT8
    ]
    return len(scales), max(scales)


def int8_layers(path):
    """The numbers of int8 weights and of quantised activations in an OpenVINO file."""
    import openvino

    operators = openvino.Core().read_model(str(path)).get_ops()
    kinds = [each.get_type_name() for each in operators]
    types = [each.get_element_type() for each in operators if each.get_type_name() == "Constant"]
    return types.count(openvino.Type.i8), kinds.count("FakeQuantize")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_layers_become_int8_and_the_file_still_knows_its_images(exported, tmp_path, suffix):
    cfg, path, _ = exported
    out, model = tmp_path / f"int8{suffix}", path.with_suffix(SOURCES[suffix])
    full, small = quantize_classifier(cfg, model, out, **FEW)
    # Five convolutions and four depthwise ones, in OpenVINO all with a quantised input.
    if suffix == ".onnx":
        assert int8_weights(out) == (9, 32)
    elif suffix == ".xml":
        weights, activations = int8_layers(out)
        assert weights == 9 and activations >= 9
    assert (full.name, full.accuracy, full.agreement, full.logit_error) == ("fp32", 100, 100, 0)
    assert small.name == "int8" and 0 < small.logit_error < 100
    assert small.accuracy == small.agreement and small.latency.median > 0
    assert set(tmp_path.iterdir()) == set(find_format(out).files(out))
    assert small.size_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    (image, *_) = sorted((path.parent / "imagenet" / "val").rglob("*.*"))
    before, after = Predictor.load(path), Predictor.load(out)
    expected, found = before(before.read(image)), after(after.read(image))
    assert found["pred_class"] in "abcdef"
    np.testing.assert_allclose(found["pred_scores"], expected["pred_scores"], atol=0.1)
    done = subprocess.run([sys.executable, "-c", SIGNAL, out], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_scale_a_layer_is_good_enough_once_equalised(exported, tmp_path, suffix, run_tool):
    cfg, path, net = exported
    net, errors = with_one_large_channel(net), {}
    for name, balance in dict(plain=False, equalised=True).items():
        model = tmp_path / f"{name}{SOURCES[suffix]}"
        out = tmp_path / f"{name}_int8{suffix}"
        export(net, cfg, model, balance=balance)
        few = ("--calibration-images", 12, "--scheme", "layer", "--max-drop", 100)
        status, printed = run_tool("quantize", path.with_name("cfg.py"), model, out, *few)
        assert status == 0, printed.err
        said = "a weight scale for each layer; weights equalised at export: "
        assert said + {True: "yes", False: "no"}[balance] in printed.out
        forms = {file.name: open_form(file) for file in (model, out)}
        errors[name] = measure_forms(forms, Samples(cfg, "test", None))[1].logit_error
        if suffix == ".onnx":
            assert int8_weights(out) == (9, 1)
    assert errors["plain"] > 1.5 * errors["equalised"] > 0, errors


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_scores_of_a_softmax_stay_floats(exported, tmp_path, suffix):
    cfg, path, net = exported
    model, out = tmp_path / f"net{SOURCES[suffix]}", tmp_path / f"int8{suffix}"
    export(net, cfg, model, softmax=True)
    quantize_classifier(cfg, model, out, **FEW)
    (image, *_) = sorted((path.parent / "imagenet" / "val").rglob("*.*"))
    runner = Predictor.load(out)
    scores = runner(runner.read(image))["pred_scores"]
    steps = (255, 256)  # of the int8 of ONNX Runtime, of LiteRT
    assert abs(scores.sum() - 1) < 1e-5 and all((scores * n % 1 > 1e-3).any() for n in steps)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_layers_kept_in_fp32_and_unknown_ones(exported, tmp_path, suffix):
    cfg, path, _ = exported
    model, out = path.with_suffix(SOURCES[suffix]), tmp_path / f"int8{suffix}"
    with pytest.raises(ValueError, match="no layer 'stem' to leave in fp32; ") as refusal:
        quantize_classifier(cfg, model, out, keep_float=["stem"], **FEW)
    assert not list(tmp_path.iterdir())
    if suffix in (".tflite", ".pte"):
        assert "leave --keep-float out" in str(refusal.value)
        return
    layers = str(refusal.value).partition("choose from ")[2].split(", ")
    assert len(layers) == 9
    quantize_classifier(cfg, model, out, keep_float=layers[1:], **FEW)
    assert (int8_weights if suffix == ".onnx" else int8_layers)(out)[0] == 1


def test_a_collapse_is_refused_unless_it_is_allowed(exported, tmp_path, run_tool):
    cfg, path, net = exported
    export(with_one_large_channel(net), cfg, tmp_path / "net.onnx", balance=False)
    arguments = (path.with_name("cfg.py"), tmp_path / "net.onnx", tmp_path / "int8.onnx")
    few = ("--calibration-images", 4)
    status, printed = run_tool("quantize", *arguments, *few)
    assert status == 1 and not (tmp_path / "int8.onnx").exists()
    assert "error: int8 falls from 100.00 to " in printed.err
    assert "--keep-float" in printed.err and "--max-drop" in printed.err
    status, printed = run_tool("quantize", *arguments, *few, "--max-drop", 100)
    assert status == 0 and (tmp_path / "int8.onnx").exists()
    assert "int8" in printed.out and "fp32" in printed.out and "written:" in printed.out


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(calibration_images=0), ValueError, "at least one image of the train split"),
        (dict(test_images=-1), ValueError, "at least one image of the test split"),
        (dict(max_drop=float("nan")), ValueError, "max_drop must be a number of points"),
        (dict(scheme="pixel"), ValueError, "scheme must be one of channel, layer"),
        (dict(out="net.onnx", overwrite=True), ValueError, "is also an input"),
        (dict(out="precious.onnx"), FileExistsError, "exists"),
        (dict(out="out.pt2"), ValueError, r"no int8 form here; end it with \.onnx or .* or \.pte"),
        (dict(out="out.pte"), ValueError, r"an int8 \.pte file is made of an \.pt2 file"),
        (dict(model="no.onnx"), FileNotFoundError, r"no model at .*write one with `.*export"),
        (dict(model="features.onnx"), ValueError, "has a backbone; only classifiers can"),
        (dict(model="cfg.py"), ValueError, r"an int8 \.onnx file is made of an \.onnx file"),
        (dict(cfg=Config(dict(default_scope="mmdet"))), ValueError, "only classifiers"),
    ],
)
def test_refusals(exported, change, error, message):
    cfg, path, _ = exported
    (path.parent / "precious.onnx").write_text("precious")
    other = onnx.load(str(path))
    next(each for each in other.metadata_props if each.key == "part").value = "backbone"
    onnx.save(other, str(path.parent / "features.onnx"))
    arguments = dict(cfg=cfg, model="net.onnx", out="out.onnx") | change
    for name in ("model", "out"):
        arguments[name] = path.parent / arguments[name]
    with pytest.raises(error, match=message):
        quantize_classifier(**arguments)
    assert (path.parent / "precious.onnx").read_text() == "precious"
    assert not list(path.parent.glob("out.*"))


def test_several_labels_an_image_are_refused(exported, tmp_path):
    cfg, path, _ = exported
    image = next((path.parent / "imagenet" / "val").rglob("*.*"))
    listed = [dict(img_path=str(image), gt_label=[0, 1])]
    labels = dict(metainfo=dict(classes=list("abcdef")), data_list=listed)
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    cfg = cfg.copy()
    cfg.train_dataloader.dataset = dict(
        type="MultiLabelDataset", data_root=str(tmp_path), ann_file="labels.json"
    )
    with pytest.raises(ValueError, match="has 2 labels; .*only classifiers of one label an image"):
        quantize_classifier(cfg, path, tmp_path / "int8.onnx", **FEW)
    assert not (tmp_path / "int8.onnx").exists()
