"""The runner: the inputs and answers of the toolboxes, without any of them, or a clear line."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("mmpretrain.models")
pytest.importorskip("mmvanilla.cls_head")

from mmvanilla.apis.config import load_config  # noqa: E402
from mmvanilla.apis.images import ImageReader  # noqa: E402
from mmvanilla.apis.model import build_model, load_model  # noqa: E402
from mmvanilla.deploy.exportable import resolve_part, score_function  # noqa: E402
from mmvanilla.deploy.exporting import export_model  # noqa: E402
from mmvanilla.deploy.formats import find_format  # noqa: E402
from mmvanilla.deploy.runner import Predictor  # noqa: E402
from mmvanilla.deploy.runner_copy import runner_text  # noqa: E402
from mmvanilla.deploy.runner_metadata import describe_for_runner, refusal  # noqa: E402
from tests.deploy.runner_models import (  # noqa: E402
    META,
    STEPS,
    classifier_config,
    save,
    segmenter_config,
    write_images,
    write_odd_images,
)
from tests.deploy.test_onnx_export import OwnScores  # noqa: E402
from tests.helpers import ROOT  # noqa: E402

MORE = [
    pytest.param(suffix, marks=pytest.mark.exhaustive)
    for suffix in (".xml", ".param", ".tflite", ".pte")
]


def export(model, config, out, softmax=False):
    """Export a model as the tool does; its predictor."""
    cfg = load_config(str(config))
    described = describe_for_runner(model, cfg, dict(dataset_meta=META), softmax=softmax)
    assert refusal(described) is None
    options = dict(size=(64, 64), softmax=softmax, metadata=described)
    export_model(model, out, find_format(out), **options)
    return Predictor.load(out)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier as (config, weights, model, ONNX file)."""
    folder = tmp_path_factory.mktemp("classifier")
    config, weights, model = save(classifier_config(STEPS), folder)
    export(model, config, folder / "net.onnx")
    return config, weights, model, folder / "net.onnx"


@pytest.mark.parametrize("suffix", [".onnx", *MORE])
def test_classes_are_those_of_the_inferencer(classifier, suffix, tmp_path):
    from mmpretrain.apis import ImageClassificationInferencer

    config, weights, model, _ = classifier
    for package in find_format(f"net{suffix}").packages:
        pytest.importorskip(package)
    predictor = export(model, config, tmp_path / f"net{suffix}")
    images = write_images(tmp_path / "images", 8)
    inferencer = ImageClassificationInferencer(str(config), pretrained=str(weights), device="cpu")
    expected = inferencer([str(image) for image in images])
    assert len({answer["pred_label"] for answer in expected}) > 1
    for image, answer in zip(images, expected, strict=True):
        found = predictor(predictor.read(image))
        assert found["pred_label"] == answer["pred_label"]
        assert found["pred_class"] == answer["pred_class"]
        np.testing.assert_allclose(found["pred_scores"], answer["pred_scores"], atol=1e-5)
        assert found["pred_score"] == pytest.approx(answer["pred_score"], abs=1e-5)


@pytest.mark.parametrize(("softmax", "rule"), [(False, dict(thr=0.4)), (True, dict(topk=2))])
def test_several_labels_are_those_of_the_models_own_predict(softmax, rule, tmp_path):
    cfg = classifier_config(STEPS)
    cfg.model.neck = dict(type="GlobalAveragePooling")
    cfg.model.head = dict(type="MultiLabelLinearClsHead", in_channels=32, num_classes=6, **rule)
    config, _, model = save(cfg, tmp_path / "model")
    certain = copy.deepcopy(model)  # of whose logits both functions make ones and zeros
    certain.head.fc.bias.data[:] = torch.tensor([90.0] + [-90.0] * 5)
    assert score_function(certain) == "sigmoid"
    predictor = export(model, config, tmp_path / "net.onnx", softmax)
    for image in write_images(tmp_path / "images", 4):
        inputs, samples = ImageReader(model, cfg).batch(image)
        with torch.no_grad():
            (expected,) = model(inputs, samples, mode="predict")
        found = predictor(predictor.read(image))
        np.testing.assert_allclose(found["pred_scores"], expected.pred_score, atol=1e-5)
        assert sorted(found["pred_label"]) == sorted(expected.pred_label.tolist())
        assert found["pred_class"] == [META["classes"][label] for label in found["pred_label"]]


SLIDE = dict(mode="slide", crop_size=(64, 64), stride=(40, 48))
PADDED = dict(pad_val=0, seg_pad_val=255, test_cfg=dict(size_divisor=32))


@pytest.mark.toolbox("mmseg")
@pytest.mark.parametrize("suffix", [".onnx", *MORE[:1]])
@pytest.mark.parametrize(
    ("size", "test_cfg", "padding"),
    [((96, 64), None, {}), ((130, 100), SLIDE, {}), ((90, 70), dict(mode="whole"), PADDED)],
    ids=["whole", "slide", "padded"],
)
def test_maps_are_those_of_the_inferencer(size, test_cfg, padding, suffix, tmp_path):
    from mmseg.apis import MMSegInferencer

    if suffix == ".xml":
        pytest.importorskip("openvino")
    cfg = segmenter_config(size, test_cfg)
    cfg.model.data_preprocessor.update(padding)
    config, weights, model = save(cfg, tmp_path / "model")
    predictor = export(model, config, tmp_path / f"net{suffix}")
    inferencer = MMSegInferencer(str(config), weights=str(weights), device="cpu")
    for image in write_images(tmp_path / "images", 6):
        expected = np.asarray(inferencer(str(image))["predictions"])
        found = predictor(predictor.read(image))["labels"]
        assert found.shape == expected.shape
        # Where two classes are equal within float32, either may win.
        assert (found != expected).mean() <= 1e-3, image
        assert len(np.unique(expected)) > 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda steps: steps.insert(1, dict(type="RandomFlip", prob=1.0)), "the step RandomFlip"),
        (lambda steps: steps[0].update(imdecode_backend="pillow"), "LoadImageFromFile, by OpenCV"),
        (lambda steps: steps.pop(0), "does not begin with LoadImageFromFile"),
        (lambda steps: steps[2].update(auto_pad=True, crop_size=64), "its CenterCrop has auto_pad"),
        (lambda steps: steps[0].update(to_float32=True), "Pillow backend only support uint8"),
    ],
)
def test_what_the_runner_cannot_do_is_said_by_the_file(change, reason):
    cfg = classifier_config(STEPS)
    change(cfg.test_dataloader.dataset.pipeline)
    found = refusal(describe_for_runner(build_model(cfg).eval(), cfg, {}))
    assert re.search(reason, found or "nothing"), found


def test_images_of_four_channels_are_read_as_they_are():
    cfg = classifier_config(STEPS, mean=[0.0] * 4, std=[255.0] * 4, to_rgb=False)
    cfg.test_dataloader.dataset.pipeline[0].color_type = "unchanged"
    cfg.test_dataloader.dataset.pipeline.pop(1)  # Pillow takes three
    cfg.model.backbone.in_channels = 4
    assert refusal(describe_for_runner(build_model(cfg).eval(), cfg, {})) is None


def test_what_is_no_classifier_or_of_one_size_is_named(tmp_path):
    def refuse(module, inputs):
        if inputs[0].shape[2:] != (64, 64):
            raise RuntimeError("other sizes")

    model = build_model(classifier_config(STEPS)).eval()
    model.backbone.register_forward_pre_hook(refuse)
    out = tmp_path / "net.onnx"
    with pytest.raises(ValueError, match=r"no images of 96x32 pixels \(other.*--fixed-size"):
        export_model(model, out, find_format(out), size=(64, 64))
    model.head = torch.nn.Identity()  # as one of self-supervised learning
    assert resolve_part(model) == "backbone"


@pytest.mark.toolbox("mmseg")
def test_other_predictions_are_refused(classifier, tmp_path):
    aligned = segmenter_config((96, 64), align_corners=True)
    described = describe_for_runner(build_model(aligned).eval(), aligned, {})
    assert "align_corners" in refusal(described)
    config, weights, _, _ = classifier
    cfg = load_config(str(config))
    model, _ = load_model(cfg, str(weights))
    features = describe_for_runner(model, cfg, {}, part="backbone")
    assert "features of a backbone" in refusal(features)
    out = tmp_path / "net.onnx"
    export_model(model, out, find_format(out), size=(64, 64), part="backbone", metadata=features)
    with pytest.raises(ValueError, match="cannot be used here: it gives the features"):
        Predictor.load(out)
    model.head = OwnScores(model.head)
    assert "something else of the network's outputs" in refusal(describe_for_runner(model, cfg, {}))


WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))  # each import is an error
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
OURS = "mmvanilla,mmengine,mmcv,mmdet,mmseg,mmpretrain,"


@pytest.fixture
def device(tmp_path):
    """Runs the one file in an empty folder, on a Python that has nothing of ours."""
    (tmp_path / "predict.py").write_text(runner_text())

    def run(*args, without="torch,torchvision,onnx,yaml,matplotlib,rich,pandas,scipy"):
        return subprocess.run(
            [sys.executable, "-I", "-c", WITHOUT, OURS + without, "predict.py", *map(str, args)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )

    return run


def test_a_device_needs_one_file_numpy_opencv_and_the_runtime(classifier, device, tmp_path):
    images, model = write_images(tmp_path / "images", 3), classifier[3]
    images += write_odd_images(tmp_path / "images").values()
    done = device(model, tmp_path / "images", "--out", "all.json", "--out-dir", "pictures")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    answers = json.loads((tmp_path / "all.json").read_text())
    assert [answer["image"] for answer in answers] == [str(image) for image in sorted(images)]
    predictor = Predictor.load(model)
    for image, answer in zip(sorted(images), answers, strict=True):
        found = predictor(predictor.read(image))
        assert answer["pred_label"] == found["pred_label"]
        assert answer["pred_class"] == found["pred_class"] in META["classes"]
        picture = cv2.imread(str(tmp_path / "pictures" / f"{image.stem}.png"))
        assert picture.shape == predictor.read(image).shape
    printed = device(model, images[0])
    assert json.loads(printed.stdout)[0]["pred_label"] == answers[0]["pred_label"]
    without = device(model, images[0], without="cv2")  # as where libGL is missing
    (line,) = without.stderr.splitlines()
    assert without.returncode == 1 and line.startswith("error: import of cv2 halted")
    assert "run `pip install numpy opencv-python-headless`" in line


@pytest.mark.toolbox("mmseg")
def test_a_device_gets_the_maps_of_a_segmenter(device, tmp_path):
    config, _, model = save(segmenter_config((96, 64)), tmp_path / "model")
    predictor = export(model, config, tmp_path / "net.onnx")
    (image,) = write_images(tmp_path / "images", 1)
    done = device("net.onnx", image, "--out-dir", "pictures")
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    expected = predictor(predictor.read(image))["labels"]
    labels = cv2.imread(str(tmp_path / "pictures" / f"{image.stem}_labels.png"), -1)
    np.testing.assert_array_equal(labels, expected)
    assert sum(answer["pixels"].values()) == expected.size
    assert set(answer["pixels"]) == {META["classes"][label] for label in np.unique(expected)}


def test_bad_inputs_end_in_one_line_and_nothing_is_replaced(classifier, tmp_path, run_tool):
    model = classifier[3]
    for name, text in {"text.png": "no image", "nothing.png": "", "other.pth": "weights"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "empty").mkdir()
    image, other = (write_images(tmp_path / name, 1)[0] for name in ("images", "others"))
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:2000])
    foreign = onnx.load(str(model))
    del foreign.metadata_props[:]
    onnx.save(foreign, str(tmp_path / "foreign.onnx"))
    (tmp_path / "link.json").symlink_to(model)
    cases = {
        (model, "text.png"): "text.png: it cannot be read as an image",
        (model, "nothing.png"): "nothing.png: it cannot be read as an image",
        (model, "empty"): "no image (.bmp",
        (model, "gone.png"): "at gone.png; check the path",
        ("cut.onnx", image): "cut.onnx cannot be loaded",
        ("foreign.onnx", image): "does not say how it is used",
        ("gone.onnx", image): "no model at gone.onnx",
        ("other.pth", image): "ends in none of .onnx, .xml",
        (model, image, other): "two of the files to write have one name",
        (model, image, "--out", "./pictures/000.png"): "two of the files to write have one name",
        (model, image, "--device", "npu"): "has no NPUExecutionProvider",
        (model, image, "--out", model): "net.onnx exists already",
        (model, image, "--out", "link.json"): "link.json exists already",
        (model, image, "--out-dir", tmp_path / "images"): "000.png exists already",
    }
    files = {path: path.read_bytes() for path in [*tmp_path.rglob("*.*"), model] if path.is_file()}
    for arguments, reason in cases.items():
        out = () if "--out-dir" in arguments else ("--out-dir", "pictures")
        status, printed = run_tool("predict", *arguments, *out)
        found = re.search(rf"^error: .*{re.escape(reason)}.*\n\Z", printed.err, re.MULTILINE)
        assert found and (status, printed.out) == (1, ""), (arguments, printed.err)
    after = {path: path.read_bytes() for path in [*tmp_path.rglob("*.*"), model] if path.is_file()}
    assert after == files


def test_images_behind_one_that_fails_are_predicted(classifier, tmp_path, run_tool, monkeypatch):
    images = write_images(tmp_path / "images", 4)
    images[1].write_text("no image")
    true_call, white = Predictor.__call__, np.full((20, 20, 3), 255, np.uint8)
    cv2.imwrite(str(images[2]), white)

    def call(self, image):
        run = self.run if image.min() < 255 else lambda inputs: [np.full((1, 6), np.nan)]
        return true_call(Predictor(run, self.settings), image)

    monkeypatch.setattr(Predictor, "__call__", call)
    (tmp_path / "images" / "folder.png").mkdir()
    args = (classifier[3], tmp_path / "images", "--device", "CPU")
    status, printed = run_tool("predict", *args, "--out", "all.json", "--out-dir", "pictures")
    assert status == 1 and "not finite for this image; 2 of 4 images failed" in printed.err
    answers = json.loads((tmp_path / "all.json").read_text())
    assert ["error" in answer for answer in answers] == [False, True, True, False]
    assert answers[2]["error"].startswith(f"{images[2]}: the model's outputs are not finite")
    assert len(list((tmp_path / "pictures").iterdir())) == 2


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_onnx_runtime_reports_nothing_to_its_makers():
    """Its reports come from a thread that begins with its import."""
    code = """
import os, runner_runtimes
threads = len(os.listdir("/proc/self/task"))
try:
    runner_runtimes.open_onnx("no file")
except ValueError:
    print(len(os.listdir("/proc/self/task")) - threads)
"""
    off = ("ORT_DISABLE_TELEMETRY", "CI")  # it reports nothing in a CI, either
    env = {name: value for name, value in os.environ.items() if name not in off}
    env["PYTHONPATH"] = str(ROOT / "mmvanilla" / "deploy")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stdout + done.stderr


def test_the_runner_is_written_beside_the_file(classifier, tmp_path, run_tool):
    path, (config, weights, *_) = tmp_path / "predict.py", classifier
    options = ("--shape", 64, 64, "--with-runner")
    assert run_tool("export", config, weights, "net.onnx", *options)[0] == 0
    assert path.read_text() == runner_text()
    path.write_text("mine")  # another predict.py is not ours to replace
    status, printed = run_tool("export", config, weights, "third.onnx", *options)
    assert status == 1 and "predict.py exists" in printed.err
    assert path.read_text() == "mine" and not (tmp_path / "third.onnx").exists()
    own = run_tool("export", "predict.py", weights, "net.onnx", *options, "--overwrite")
    assert own[0] == 1 and path.read_text() == "mine"  # nor is one that is read
    path.unlink()
    assert run_tool("export", config, config, "fifth.onnx", *options)[0] == 1
    assert not path.exists()  # without a file that it could run
