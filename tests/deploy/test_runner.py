"""The runner: the inputs and answers of the toolboxes, without any of them, or a clear line."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("mmpretrain.models")
pytest.importorskip("mmvanilla.cls_head")

from mmvanilla.deploy import runner  # noqa: E402
from mmvanilla.deploy.exporting import export_model  # noqa: E402
from mmvanilla.deploy.formats import find_format  # noqa: E402
from mmvanilla.deploy.runner import Predictor  # noqa: E402
from mmvanilla.deploy.runner_metadata import describe_for_runner, refusal  # noqa: E402
from tests.deploy.runner_models import (  # noqa: E402
    META,
    build,
    classifier_config,
    learn,
    save,
    segmenter_config,
    write_images,
)
from tests.helpers import ROOT  # noqa: E402

# How many images the answers are compared on: by default, and by `make test-all`.
COUNTS = [8, pytest.param(100, marks=pytest.mark.exhaustive)]
EDGE = dict(type="ResizeEdge", scale=72, edge="short", backend="pillow", interpolation="bicubic")
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
        "flattened": [dict(resize, scale=(150, 20), backend="pillow")],
        "long edge": [dict(EDGE, edge="long", interpolation="lanczos")],
        "width": [dict(EDGE, edge="width", interpolation="bilinear", scale=33)],
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
            model = build(cfg)
            entries = describe_for_runner(model, cfg, dict(dataset_meta=META))
            assert refusal(entries) is None, name
            predictor = Predictor.__new__(Predictor)
            predictor.settings, predictor.size = json.loads(entries["runner"]), None
            pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
            for path in images:
                sample = pipeline(dict(img_path=str(path)))
                expected = model.data_preprocessor(pseudo_collate([sample]))["inputs"]
                found = predictor.prepare(predictor.read(path))[0]
                np.testing.assert_array_equal(found, expected.numpy(), err_msg=f"{name}, {path}")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_classes_are_those_of_the_inferencer(classifier, suffix, count, tmp_path):
    from mmpretrain.apis import ImageClassificationInferencer

    cfg, model, (config, weights), path = classifier
    if suffix == ".xml":
        pytest.importorskip("openvino")
        path = export(model, cfg, tmp_path / "net.xml")
    images = write_images(tmp_path / "images", count)
    inferencer = ImageClassificationInferencer(str(config), pretrained=str(weights), device="cpu")
    expected = inferencer([str(image) for image in images])
    predictor = Predictor(path)
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
@pytest.mark.parametrize("kind", SEGMENTERS)
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_maps_are_those_of_the_inferencer(segmenter_weights, kind, suffix, count, tmp_path):
    from mmseg.apis import MMSegInferencer

    if suffix == ".xml":
        pytest.importorskip("openvino")
        if kind != "whole" and count < 100:
            pytest.skip("with ONNX Runtime by default")
    options = dict(SEGMENTERS[kind])
    preprocessing = options.pop("preprocessor_test_cfg", None)
    cfg = segmenter_config(**options)
    if preprocessing:
        cfg.model.data_preprocessor.test_cfg = preprocessing
    model = build(cfg)
    model.load_state_dict(segmenter_weights)
    config, weights = save(cfg, model, tmp_path / "model")
    predictor = Predictor(export(model, cfg, tmp_path / f"net{suffix}", full_size=kind == "padded"))
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


def test_detections_are_put_where_mmdet_puts_them(tmp_path):
    pytest.importorskip("mmcv._ext")
    heads = pytest.importorskip("mmdet.models.roi_heads.mask_heads")

    rng = np.random.default_rng(0)
    corner, side = rng.uniform(-5, 60, (20, 2)), rng.uniform(0.5, 40, (20, 2))
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    boxes[3, 2] = boxes[3, 0]  # one without area
    logits = rng.normal(size=(20, 1, 28, 28)).astype(np.float32) * 3
    labels = rng.integers(0, 2, 20)
    labels[15:] = -1  # what the graph fills up with
    masks = 1 / (1 + np.exp(-logits))
    dets = np.concatenate([boxes, rng.uniform(0.1, 1, (20, 1)).astype(np.float32)], axis=1)

    predictor = Predictor.__new__(Predictor)
    predictor.settings = dict(mask_threshold=0.5)
    predictor.run = lambda inputs: [dets[None], labels[None], masks[None, :, 0]]
    shape, scale, original = (61, 77), (0.8, 0.75), (81, 96)
    inputs = np.zeros((1, 3, 64, 96), np.float32)
    found = runner.TASKS["detection"](predictor, inputs, shape, scale, original)

    kept = torch.from_numpy(boxes[:15]).clone()
    kept[:, 0::2] = kept[:, 0::2].clamp(0, 77)
    kept[:, 1::2] = kept[:, 1::2].clamp(0, 61)
    head = heads.FCNMaskHead(num_convs=0, num_classes=1, class_agnostic=True)
    expected = head._predict_by_feat_single(
        torch.from_numpy(logits[:15]),
        kept,  # which this changes in place to pixels of the file
        torch.from_numpy(labels[:15]),
        dict(scale_factor=scale, ori_shape=original),
        Config(dict(mask_thr_binary=0.5)),
        rescale=True,
    )
    np.testing.assert_allclose(found["bboxes"], kept.numpy(), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(found["labels"], labels[:15])
    np.testing.assert_array_equal(found["scores"], dets[:15, 4])
    assert found["masks"].shape == (15, 81, 96) and found["masks"].any()
    np.testing.assert_array_equal(found["masks"], expected.numpy())


def test_masks_are_encoded_as_coco_reads_them():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for mask in (rng.random((7, 5)) > 0.5, np.ones((3, 4), bool), np.zeros((3, 4), bool)):
        encoded = runner.encode_mask(mask)
        compressed = coco.frPyObjects(encoded, *encoded["size"])
        np.testing.assert_array_equal(coco.decode(compressed), mask)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda steps: steps.insert(1, dict(type="RandomFlip", prob=1.0)), "the step RandomFlip"),
        (lambda steps: steps[0].update(imdecode_backend="pillow"), "reads images with pillow"),
        (lambda steps: steps[1].update(interpolation="nearest"), "resizes by nearest with pillow"),
        (lambda steps: steps.pop(0), "does not begin with LoadImageFromFile"),
        (lambda steps: steps[2].update(auto_pad=True), "smaller than the crop"),
        (lambda steps: steps[0].update(to_float32=True), "resizes float images with Pillow"),
        (lambda steps: steps.insert(1, dict(type="Nonsense")), "Nonsense of its pipeline cannot"),
    ],
)
def test_what_the_runner_cannot_do_is_said_by_the_file(change, reason):
    cfg = classifier_config([dict(step) for step in CLASSIFIER_STEPS])
    change(cfg.test_dataloader.dataset.pipeline)
    assert reason in refusal(describe_for_runner(build(cfg), cfg, {}))


def test_what_is_no_prediction_is_refused(classifier, tmp_path):
    cfg, model, _, path = classifier
    features = describe_for_runner(model, cfg, {}, part="backbone")
    assert "features of a backbone" in refusal(features)
    target = find_format("net.onnx")
    export_model(
        model, tmp_path / "net.onnx", target, size=(64, 64), part="backbone", metadata=features
    )
    with pytest.raises(ValueError, match="cannot be used here: it gives the features"):
        Predictor(tmp_path / "net.onnx")
    described = describe_for_runner(model, cfg, dict(dataset_meta=META), softmax=True)
    out = tmp_path / "soft.onnx"
    export_model(model, out, target, size=(64, 64), softmax=True, metadata=described)
    image = write_images(tmp_path / "images", 1)[0]
    soft, hard = Predictor(out), Predictor(path)
    np.testing.assert_allclose(
        soft(soft.read(image))["pred_scores"], hard(hard.read(image))["pred_scores"], atol=1e-5
    )


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root in ("torch", "torchvision", "mmvanilla", "PIL", "onnx") or root.startswith("mm"):
            raise ImportError(f"{root} is not on this device")
sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def device(tmp_path):
    """Runs the runner's copy in an empty folder, on a Python that has nothing of ours."""
    copy = tmp_path / "predict.py"
    copy.write_bytes((ROOT / "mmvanilla" / "deploy" / "runner.py").read_bytes())

    def run(*args):
        return subprocess.run(
            [sys.executable, "-I", "-c", BLOCKER, str(copy), *map(str, args)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )

    return run


def test_a_device_needs_one_file_numpy_opencv_and_the_runtime(classifier, device, tmp_path):
    images = write_images(tmp_path / "images", 4)
    done = device(classifier[3], tmp_path / "images", "--out", "all.json", "--out-dir", "pictures")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    answers = json.loads((tmp_path / "all.json").read_text())
    assert [answer["image"] for answer in answers] == [str(image) for image in images]
    predictor = Predictor(classifier[3])
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
    predictor = Predictor(path)
    expected = predictor(predictor.read(image))["labels"]
    labels = cv2.imread(str(tmp_path / "pictures" / f"{image.stem}_labels.png"), -1)
    np.testing.assert_array_equal(labels, expected)
    assert answer["size"] == list(expected.shape)
    assert sum(answer["pixels"].values()) == expected.size
    assert set(answer["pixels"]) == {META["classes"][label] for label in np.unique(expected)}


def test_bad_inputs_end_in_one_line(classifier, device, tmp_path):
    model = classifier[3]
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "nothing.png").write_text("")
    (tmp_path / "empty").mkdir()
    (image,) = write_images(tmp_path / "images", 1)
    cv2.imwrite(str(tmp_path / "narrow.png"), np.zeros((2, 200, 3), np.uint8))
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:2000])
    foreign = onnx.load(str(model))
    del foreign.metadata_props[:]
    onnx.save(foreign, str(tmp_path / "foreign.onnx"))
    (tmp_path / "other.pth").write_text("weights")
    cases = {
        (model, "text.png"): "text.png cannot be read as an image",
        (model, "nothing.png"): "nothing.png cannot be read as an image",
        (model, "narrow.png"): "may be at most 50 times as long",
        (model, "empty"): "no image (.bmp",
        (model, "gone.png"): "no image or folder at gone.png",
        ("cut.onnx", image): "cut.onnx cannot be loaded",
        ("foreign.onnx", image): "does not say how it is used",
        ("gone.onnx", image): "no model at gone.onnx",
        ("other.pth", image): "is neither an .onnx nor an .xml file",
        (model, image, "--device", "npu"): "has no NPUExecutionProvider",
    }
    before = set(tmp_path.rglob("*"))
    for arguments, reason in cases.items():
        done = device(*arguments, "--out", "all.json", "--out-dir", "pictures")
        assert done.returncode == 1, arguments
        lines = done.stderr.splitlines()
        assert lines[-1].startswith("error: ") and reason in lines[-1], (arguments, done.stderr)
        assert "Traceback" not in done.stderr and done.stdout == ""
    assert set(tmp_path.rglob("*")) == before  # nothing was written


def test_broken_openvino_models_end_in_one_line(classifier, device, tmp_path):
    pytest.importorskip("openvino")
    cfg, model, _, _ = classifier
    path = export(model, cfg, tmp_path / "net.xml")
    (image,) = write_images(tmp_path / "images", 1)
    assert device(path, image).returncode == 0
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    cut = device(path, image)
    path.write_text(text.replace("mmvanilla", "somebody"))
    foreign = device(path, image)
    path.write_text(text)
    path.with_suffix(".bin").unlink()
    alone = device(path, image)
    for done, reason in (
        (cut, "cannot be loaded"),
        (foreign, "does not say how it is used"),
        (alone, "cannot be loaded"),
    ):
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("error: ") and reason in done.stderr
        assert "Traceback" not in done.stderr


def test_the_tool_is_the_same_program(classifier, tmp_path, monkeypatch, capsys):
    from tests.deploy.test_formats import run_tool

    (image,) = write_images(tmp_path / "images", 1)
    status, printed, _ = run_tool(monkeypatch, capsys, classifier[3], image, tool="predict.py")
    assert status == 0 and json.loads(printed)[0]["task"] == "classification"
    status, _, errors = run_tool(monkeypatch, capsys, "gone.onnx", image, tool="predict.py")
    assert status == 1 and errors.startswith("error: no model at gone.onnx")


def test_the_runner_imports_nothing_else():
    import ast

    tree = ast.parse((ROOT / "mmvanilla" / "deploy" / "runner.py").read_text())
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(node.module.partition(".")[0])
    assert roots - set(sys.stdlib_module_names) == {"numpy", "cv2", "onnxruntime", "openvino"}
