"""The runner: the inputs and answers of the toolboxes, without any of them, or a clear line."""

import ast
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
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, init_default_scope

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("mmpretrain.models")
pytest.importorskip("mmvanilla.cls_head")

from mmvanilla.apis.images import ImageReader  # noqa: E402
from mmvanilla.deploy import runner  # noqa: E402
from mmvanilla.deploy.exporting import export_model  # noqa: E402
from mmvanilla.deploy.formats import find_format  # noqa: E402
from mmvanilla.deploy.runner import Predictor  # noqa: E402
from mmvanilla.deploy.runner_copy import RUNNER_NAME, runner_files, runner_text  # noqa: E402
from mmvanilla.deploy.runner_metadata import (  # noqa: E402
    describe_for_runner,
    describe_reading,
    refusal,
)
from mmvanilla.deploy.runner_steps import prepare_image  # noqa: E402
from mmvanilla.deploy.runner_tasks import as_picture  # noqa: E402
from tests.deploy.export_models import build_backbone  # noqa: E402
from tests.deploy.runner_models import (  # noqa: E402
    META,
    build,
    classifier_config,
    learn,
    save,
    segmenter_config,
    write_images,
)
from tests.deploy.test_onnx_export import OwnScores  # noqa: E402
from tests.helpers import ROOT, randomise  # noqa: E402

# How many images the answers are compared on: by default, and by `make test-all`.
COUNTS = [6, pytest.param(100, marks=pytest.mark.exhaustive)]
ALWAYS = (".onnx", "whole"), (".onnx", "slide"), (".xml", "whole")
EDGE = dict(type="ResizeEdge", scale=72, edge="short", backend="pillow", interpolation="bicubic")
KNOWN = dict(version=runner.VERSION, task="classification", classes=META["classes"], palette=[])
CLASSIFIER_STEPS = [EDGE, dict(type="CenterCrop", crop_size=64)]


def export(model, cfg, out, size=(64, 64), **options):
    """Export a model as the tool does; the path."""
    described = describe_for_runner(model, cfg, dict(dataset_meta=META))
    export_model(model, out, find_format(out), size=size, metadata=described, **options)
    return out


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A trained classifier as (config, model, paths of config and checkpoint, ONNX file)."""
    folder = tmp_path_factory.mktemp("classifier")
    cfg = classifier_config(CLASSIFIER_STEPS)
    model = build(cfg)
    learn(model, dense=False, steps=30)
    return cfg, model, save(cfg, model, folder), export(model, cfg, folder / "net.onnx")


@pytest.fixture(scope="module")
def segmenter_weights():
    pytest.importorskip("mmseg.models")
    model = build(segmenter_config([dict(type="Resize", scale=(96, 64))]))
    learn(model, dense=True, steps=30)
    return model.state_dict()


def test_images_become_the_same_inputs_bit_by_bit(tmp_path):
    images = write_images(tmp_path / "images", 6)
    resize = dict(type="Resize", scale=(90, 70))
    pipelines = {
        "pillow bicubic, crop": CLASSIFIER_STEPS,
        "crop larger than the image": [dict(type="CenterCrop", crop_size=(100, 50))],
        "flattened": [dict(resize, scale=(150, 36), backend="pillow")],
        "long edge": [dict(EDGE, edge="long", interpolation="lanczos")],
        "width": [dict(EDGE, edge="width", interpolation="bilinear", scale=66)],
        "height": [dict(EDGE, edge="height", interpolation="box", scale=200)],
        "cv2 both sides": [resize],
        "keep ratio": [dict(resize, keep_ratio=True)],
        "keep ratio, pillow": [dict(resize, keep_ratio=True, backend="pillow")],
        "area": [dict(resize, interpolation="area")],
        "bicubic": [dict(resize, interpolation="bicubic")],
        "nearest": [dict(resize, interpolation="nearest")],
        "lanczos": [dict(resize, interpolation="lanczos")],
        "one number": [dict(type="Resize", scale=50)],
        "factor": [dict(type="Resize", scale_factor=1.37)],
        "padded to a size": [resize, dict(type="Pad", size=(128, 100), pad_val=114)],
        "padded to a square": [resize, dict(type="Pad", pad_to_square=True)],
        "padded to a multiple": [dict(type="Pad", size_divisor=32, pad_val=dict(img=(1, 2, 3)))],
    }
    for name, steps in pipelines.items():
        for options in ({}, dict(pad_size_divisor=32, pad_value=7)):
            cfg = classifier_config(steps, **options)
            init_default_scope("mmpretrain")
            model = torch.nn.Module()
            model.data_preprocessor = MODELS.build(
                dict(type="ClsDataPreprocessor", **cfg.data_preprocessor)
            )
            settings = json.loads(json.dumps(describe_reading(model, cfg)))
            predictor = Predictor(lambda inputs: [], dict(KNOWN, **settings))
            pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
            for path in images:
                sample = pipeline(dict(img_path=str(path)))
                expected = model.data_preprocessor(pseudo_collate([sample]))["inputs"]
                found = prepare_image(predictor.read(path), predictor.settings)[0]
                np.testing.assert_array_equal(found, expected.numpy(), err_msg=f"{name}, {path}")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".xml", marks=pytest.mark.exhaustive)])
def test_classes_are_those_of_the_inferencer(classifier, suffix, count, tmp_path):
    from mmpretrain.apis import ImageClassificationInferencer

    cfg, model, (config, weights), path = classifier
    if suffix == ".xml":
        pytest.importorskip("openvino")
        path = export(model, cfg, tmp_path / "net.xml")
    images = write_images(tmp_path / "images", count)
    inferencer = ImageClassificationInferencer(str(config), pretrained=str(weights), device="cpu")
    expected = inferencer([str(image) for image in images])
    predictor = Predictor.load(path)
    assert len({answer["pred_label"] for answer in expected}) > 1  # it learnt something
    for image, answer in zip(images, expected, strict=True):
        found = predictor(predictor.read(image))
        assert found["pred_label"] == answer["pred_label"]
        assert found["pred_class"] == answer["pred_class"]
        np.testing.assert_allclose(found["pred_scores"], answer["pred_scores"], atol=1e-5)
        assert found["pred_score"] == pytest.approx(answer["pred_score"], abs=1e-5)


SEGMENTERS = {
    "whole": dict(steps=[dict(type="Resize", scale=(96, 64), keep_ratio=True)]),
    "aligned": dict(steps=[dict(type="Resize", scale=(80, 80))], align_corners=True),
    "slide": dict(
        steps=[dict(type="Resize", scale=(130, 100), keep_ratio=True)],
        test_cfg=dict(mode="slide", crop_size=(64, 64), stride=(40, 48)),
    ),
    "padded": dict(
        steps=[dict(type="Resize", scale=(90, 70))],
        pad_val=0,
        seg_pad_val=255,
        test_cfg=dict(mode="whole"),
        preprocessor_test_cfg=dict(size_divisor=32),
    ),
}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        pytest.param(suffix, kind, marks=[] if (suffix, kind) in ALWAYS else pytest.mark.exhaustive)
        for suffix in (".onnx", ".xml")
        for kind in SEGMENTERS
    ],
)
def test_maps_are_those_of_the_inferencer(segmenter_weights, kind, suffix, count, tmp_path):
    from mmseg.apis import MMSegInferencer

    if suffix == ".xml":
        pytest.importorskip("openvino")
    options = dict(SEGMENTERS[kind])
    preprocessing = options.pop("preprocessor_test_cfg", None)
    cfg = segmenter_config(**options)
    if preprocessing:
        cfg.model.data_preprocessor.test_cfg = preprocessing
    model = build(cfg)
    model.load_state_dict(segmenter_weights)
    config, weights = save(cfg, model, tmp_path / "model")
    predictor = Predictor.load(
        export(model, cfg, tmp_path / f"net{suffix}", full_size=kind == "padded")
    )
    images = write_images(tmp_path / "images", count)
    inferencer = MMSegInferencer(str(config), weights=str(weights), device="cpu")
    seen = set()
    for image in images:
        expected = np.asarray(inferencer(str(image))["predictions"])
        found = predictor(predictor.read(image))["labels"]
        assert found.shape == expected.shape
        # Where two classes are equal within float32, either may win.
        assert (found != expected).mean() <= 1e-4, (image, (found != expected).sum())
        seen |= set(np.unique(expected))
    assert seen == {0, 1, 2}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda steps: steps.insert(1, dict(type="RandomFlip", prob=1.0)), "the step RandomFlip"),
        (lambda steps: steps[0].update(imdecode_backend="pillow"), "LoadImageFromFile, by OpenCV"),
        (lambda steps: steps.pop(0), "does not begin with LoadImageFromFile"),
        (lambda steps: steps[2].update(auto_pad=True, crop_size=200), "changes images in another"),
        (lambda steps: steps[0].update(to_float32=True), "Pillow backend only support uint8"),
        (lambda steps: steps.insert(1, dict(type="Nonsense")), "cannot be built: .*Nonsense"),
    ],
)
def test_what_the_runner_cannot_do_is_said_by_the_file(change, reason):
    cfg = classifier_config([dict(step) for step in CLASSIFIER_STEPS])
    change(cfg.test_dataloader.dataset.pipeline)
    found = refusal(describe_for_runner(build(cfg), cfg, {}))
    assert re.search(reason, found or "nothing"), found


def test_what_is_no_prediction_is_refused(classifier, tmp_path):
    cfg, model, _, path = classifier
    features = describe_for_runner(model, cfg, {}, part="backbone")
    assert "features of a backbone" in refusal(features)
    target = find_format("net.onnx")
    out = tmp_path / "net.onnx"
    export_model(model, out, target, size=(64, 64), part="backbone", metadata=features)
    with pytest.raises(ValueError, match="cannot be used here: it gives the features"):
        Predictor.load(out)
    own = copy.deepcopy(model)
    own.head = OwnScores(own.head)
    assert "something else of the network's outputs" in refusal(describe_for_runner(own, cfg, {}))


@pytest.mark.parametrize(("softmax", "rule"), [(False, dict(thr=0.4)), (True, dict(topk=2))])
def test_several_labels_are_those_of_the_models_own_predict(softmax, rule, tmp_path):
    cfg = classifier_config(CLASSIFIER_STEPS)
    cfg.model.neck = dict(type="GlobalAveragePooling")
    cfg.model.head = dict(type="MultiLabelLinearClsHead", in_channels=32, num_classes=3, **rule)
    model = randomise(build(cfg))
    described = describe_for_runner(model, cfg, dict(dataset_meta=META), softmax=softmax)
    assert refusal(described) is None
    out = tmp_path / "net.onnx"
    target = find_format(out)
    export_model(model, out, target, size=(64, 64), softmax=softmax, metadata=described)
    predictor = Predictor.load(out)
    for image in write_images(tmp_path / "images", 4):
        inputs, samples = ImageReader(model, cfg).batch(image)
        with torch.no_grad():
            (expected,) = model(inputs, samples, mode="predict")
        found = predictor(predictor.read(image))
        np.testing.assert_allclose(found["pred_scores"], expected.pred_score, atol=1e-5)
        assert sorted(found["pred_label"]) == sorted(expected.pred_label.tolist())
        assert found["pred_class"] == [META["classes"][label] for label in found["pred_label"]]


ODD = {  # what a file may hold: its name, channels and type
    "gray": ((50, 60), np.uint8),
    "alpha": ((50, 60, 4), np.uint8),
    "deep": ((50, 60, 3), np.uint16),
    "deep gray": ((50, 60), np.uint16),
}


@pytest.mark.parametrize("color_type", ["color", "grayscale", "unchanged"])
def test_odd_images_are_read_as_by_the_toolbox_or_refused(color_type, tmp_path):
    load = dict(type="LoadImageFromFile", color_type=color_type)
    cfg = classifier_config([dict(type="Resize", scale=(64, 64))])
    cfg.test_dataloader.dataset.pipeline[0] = load
    if color_type == "grayscale":
        cfg.data_preprocessor.update(mean=[120.0], std=[60.0], to_rgb=False)
        cfg.model.backbone.in_channels = 1
    model = randomise(build(cfg))

    @torch.no_grad()
    def run(inputs):
        return [model(torch.from_numpy(inputs)).numpy()]

    predictor = Predictor(run, json.loads(describe_for_runner(model, cfg, {})["runner"]))
    rng = np.random.default_rng(0)
    for name, (shape, kind) in ODD.items():
        path = tmp_path / f"{name}.png"
        cv2.imwrite(str(path), rng.integers(0, np.iinfo(kind).max, shape).astype(kind))
        image = predictor.read(path)
        if color_type == "unchanged" and name == "alpha":
            with pytest.raises(ValueError, match="takes images of 3 channels, and this one has 4"):
                predictor(image)
            continue
        inputs, samples = ImageReader(model, cfg).batch(path)
        with torch.no_grad():
            (expected,) = model(inputs, samples, mode="predict")
        found = predictor(image)
        np.testing.assert_allclose(found["pred_scores"], expected.pred_score, atol=1e-5)
        (picture,) = predictor.task.draw(predictor, as_picture(image), found)
        assert (picture.shape, picture.dtype) == ((50, 60, 3), np.uint8)
        assert picture.min() < 20 and picture.max() == 255  # also of deep ones


BLOCKER = """
import sys
blocked = sys.argv.pop(1).split(",")
class Blocker:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root in blocked or root.startswith("mm"):
            raise ImportError(f"{root} is not on this device")
sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def device(tmp_path):
    """Runs the one file in an empty folder, on a Python that has nothing of ours."""
    (tmp_path / "predict.py").write_text(runner_text())

    def run(*args, without="torch,torchvision,onnx"):
        return subprocess.run(
            [sys.executable, "-I", "-c", BLOCKER, without, "predict.py", *map(str, args)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )

    return run


def test_a_device_needs_one_file_numpy_opencv_and_the_runtime(classifier, device, tmp_path):
    images = write_images(tmp_path / "images", 3)
    for name, (shape, kind) in ODD.items():
        images.append(tmp_path / "images" / f"{name}.png")
        cv2.imwrite(str(images[-1]), np.full(shape, np.iinfo(kind).max // 3, kind))
    images.sort()
    done = device(classifier[3], tmp_path / "images", "--out", "all.json", "--out-dir", "pictures")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    answers = json.loads((tmp_path / "all.json").read_text())
    assert [answer["image"] for answer in answers] == [str(image) for image in images]
    predictor = Predictor.load(classifier[3])
    for image, answer in zip(images, answers, strict=True):
        found = predictor(predictor.read(image))
        assert answer["pred_label"] == found["pred_label"]
        assert answer["pred_class"] == found["pred_class"] in META["classes"]
        picture = cv2.imread(str(tmp_path / "pictures" / f"{image.stem}.png"))
        assert picture.shape == predictor.read(image).shape
    again = device(classifier[3], images[0], "--out-dir", "pictures")
    assert again.returncode == 1 and "pass --overwrite to replace it" in again.stderr
    printed = device(classifier[3], images[0])
    assert json.loads(printed.stdout)[0]["pred_label"] == answers[0]["pred_label"]


def test_a_device_gets_the_maps_of_a_segmenter(segmenter_weights, device, tmp_path):
    cfg = segmenter_config(**SEGMENTERS["whole"])
    model = build(cfg)
    model.load_state_dict(segmenter_weights)
    path = export(model, cfg, tmp_path / "net.onnx")
    image = write_images(tmp_path / "images", 1)[0]
    done = device(path, image, "--out-dir", "pictures")
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    predictor = Predictor.load(path)
    expected = predictor(predictor.read(image))["labels"]
    labels = cv2.imread(str(tmp_path / "pictures" / f"{image.stem}_labels.png"), -1)
    np.testing.assert_array_equal(labels, expected)
    assert answer["size"] == list(expected.shape)
    assert sum(answer["pixels"].values()) == expected.size
    assert set(answer["pixels"]) == {META["classes"][label] for label in np.unique(expected)}


def test_inputs_are_never_replaced(classifier, tmp_path):
    folder = tmp_path / "images"
    image = write_images(folder, 1)[0]  # a PNG
    model = folder / "net.onnx"
    model.write_bytes(classifier[3].read_bytes())
    link = tmp_path / "link.json"
    link.symlink_to(model)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for options in (["--out-dir", folder], ["--out", image], ["--out", model], ["--out", link]):
        arguments = [model, image, *options, "--overwrite"]
        with pytest.raises(ValueError, match="is an input, which would be lost"):
            runner.predict(runner.build_parser().parse_args(list(map(str, arguments))))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_bad_inputs_end_in_one_line(classifier, tmp_path, run_tool):
    model = classifier[3]
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "nothing.png").write_text("")
    (tmp_path / "empty").mkdir()
    (image,) = write_images(tmp_path / "images", 1)
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:2000])
    foreign = onnx.load(str(model))
    del foreign.metadata_props[:]
    onnx.save(foreign, str(tmp_path / "foreign.onnx"))
    (tmp_path / "other.pth").write_text("weights")
    cases = {
        (model, "text.png"): "text.png cannot be read as an image",
        (model, "nothing.png"): "nothing.png cannot be read as an image",
        (model, "empty"): "no image (.bmp",
        (model, "gone.png"): "no image or folder at gone.png",
        ("cut.onnx", image): "cut.onnx cannot be loaded",
        ("foreign.onnx", image): "does not say how it is used",
        ("gone.onnx", image): "no model at gone.onnx",
        ("other.pth", image): "ends in none of .onnx, .xml",
        (model, image, "--device", "npu"): "has no NPUExecutionProvider",
        (model, image, "--out", "old.json"): "old.json exists already; pass --overwrite",
    }
    (tmp_path / "old.json").write_text("precious")
    before = set(tmp_path.rglob("*"))
    for arguments, reason in cases.items():
        out = () if "--out" in arguments else ("--out", "all.json")
        status, printed = run_tool("predict", *arguments, *out, "--out-dir", "pictures")
        lines = printed.err.splitlines()
        assert status == 1 and printed.out == "", arguments
        assert lines[-1].startswith("error: ") and reason in lines[-1], (arguments, printed.err)
    assert set(tmp_path.rglob("*")) == before  # nothing was written
    assert (tmp_path / "old.json").read_text() == "precious"


def test_broken_openvino_models_end_in_one_line(classifier, tmp_path):
    pytest.importorskip("openvino")
    cfg, model, _, _ = classifier
    path = export(model, cfg, tmp_path / "net.xml")
    text = path.read_text()
    broken = {"cut": text[: len(text) // 2], "foreign": text.replace("mmvanilla", "somebody")}
    path.with_suffix(".bin").rename(tmp_path / "foreign.bin")
    for name, content in broken.items():
        (tmp_path / f"{name}.xml").write_text(content)
    for name, reason in {
        "cut": "cannot be loaded",
        "foreign": "does not say how it is used",
        "net": "cannot be loaded",  # without its .bin
    }.items():
        with pytest.raises(ValueError, match=reason):
            Predictor.load(tmp_path / f"{name}.xml")


def test_a_device_without_libgl_reads_one_line(device):
    done = device("net.onnx", "image.png", without="cv2")
    assert done.returncode == 1 and done.stderr.splitlines() == [
        "error: cv2 is not on this device; run `pip install numpy opencv-python-headless`, which "
        "needs no libGL"
    ]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_onnx_runtime_reports_nothing_to_its_makers():
    """Its reports come from a thread that begins with its import."""
    code = """
import contextlib, os
from runner_runtimes import open_onnx
threads = len(os.listdir("/proc/self/task"))
with contextlib.suppress(ValueError):
    open_onnx("no file")
import onnxruntime
print(len(os.listdir("/proc/self/task")) - threads)
"""
    off = ("ORT_DISABLE_TELEMETRY", "CI")  # it reports nothing in a CI, either
    env = {name: value for name, value in os.environ.items() if name not in off}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(env, PYTHONPATH=str(ROOT / "mmvanilla" / "deploy")),
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "0", done.stdout + done.stderr


def test_the_runner_imports_nothing_else():
    roots = set()
    for node in ast.walk(ast.parse(runner_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(node.module.partition(".")[0])
    assert roots - set(sys.stdlib_module_names) == {
        "numpy",
        "cv2",
        "PIL",
        "onnxruntime",
        "openvino",
    }


def test_the_runner_is_written_beside_the_file(tmp_path):
    out, path = tmp_path / "net.onnx", tmp_path / RUNNER_NAME
    assert runner_files(out, False) == [] and runner_files(out, True) == [path]
    export_model(build_backbone(), out, find_format(out), size=(64, 64), with_runner=True)
    assert path.read_text() == runner_text()
    # The same one serves a second model; another predict.py is not ours to replace.
    assert runner_files(tmp_path / "other.onnx", True) == []
    path.write_text("mine")
    other = tmp_path / "other.onnx"
    with pytest.raises(FileExistsError, match=r"predict\.py exists"):
        export_model(build_backbone(), other, find_format(other), with_runner=True)
    assert path.read_text() == "mine" and not other.exists()
