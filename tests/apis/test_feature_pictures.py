"""Pictures: of every kind, of the right size and content, and one-line refusals."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from mmvanilla.apis.feature_pictures import Viewer, class_activation, save_feature_sheet
from mmvanilla.apis.images import check_image, find_images
from mmvanilla.apis.predictions import draw_predictions
from tests.helpers import ROOT

BACKBONE = "dict(type='VanillaNet', arch=dict(dims=(8, 16, 24, 32), strides=(2, 2, 2)){})"
NORMALISED = "mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0]"
CONFIGS = {
    "mmpretrain": f"""
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmvanilla', 'mmvanilla.cls_head'])
data_preprocessor = dict(num_classes=3, {NORMALISED}, to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone={BACKBONE.format(", out_indices=(3,)")},
    head=dict(type='VanillaNetClsHead', num_classes=3, in_channels=32))
test_dataloader = dict(dataset=dict(type='CustomDataset', pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=64), dict(type='PackInputs')]))
""",
    "mmseg": f"""
default_scope = 'mmseg'
custom_imports = dict(imports=['mmvanilla'])
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', {NORMALISED}, bgr_to_rgb=True),
    backbone={BACKBONE.format("")},
    decode_head=dict(
        type='FCNHead', in_channels=32, channels=8, num_convs=1, num_classes=3, in_index=3,
        norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
test_dataloader = dict(dataset=dict(type='BaseSegDataset', pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)),
    dict(type='LoadAnnotations'), dict(type='PackSegInputs')]))
test_pipeline = test_dataloader['dataset']['pipeline']
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
""",
    "mmdet": f"""
default_scope = 'mmdet'
custom_imports = dict(imports=['mmvanilla'])
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', {NORMALISED}, bgr_to_rgb=True),
    backbone={BACKBONE.format("")},
    neck=dict(type='FPN', in_channels=[8, 16, 24, 32], out_channels=8, num_outs=5),
    bbox_head=dict(
        type='RetinaHead', num_classes=3, in_channels=8, feat_channels=8,
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], scales=[8], strides=[4, 8, 16, 32, 64])),
    test_cfg=dict(
        nms_pre=10, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=3))
test_dataloader = dict(dataset=dict(type='CocoDataset', pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
""",
}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    (folder / "notes.txt").write_text("no image")
    return folder


def write_model(tmp_path, scope):
    """A config and an untrained checkpoint of it."""
    pytest.importorskip(f"{scope}.models")
    if scope == "mmdet":
        pytest.importorskip("mmcv._ext")
    from mmengine.config import Config

    config, checkpoint = tmp_path / f"{scope}.py", tmp_path / f"{scope}.pth"
    config.write_text(CONFIGS[scope])
    init_default_scope(scope)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(str(config)).model)
    meta = dict(
        dataset_meta=dict(
            classes=("one", "two", "three"), palette=[(9, 9, 9), (99, 9, 9), (9, 99, 9)]
        )
    )
    torch.save(dict(meta=meta, state_dict=model.state_dict()), checkpoint)
    return str(config), str(checkpoint)


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["visualize.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "tools" / "visualize.py"), run_name="__main__")


@pytest.mark.parametrize("scope", CONFIGS)
def test_predictions_are_drawn(tmp_path, images, monkeypatch, scope):
    config, checkpoint = write_model(tmp_path, scope)
    run_tool(monkeypatch, "predict", config, checkpoint, images, tmp_path / "out", "--score-thr", 0)
    drawn = sorted((tmp_path / "out").rglob("*.png"))
    vis = [path for path in drawn if "pred" not in path.parts]
    assert len(vis) == 2
    original = cv2.imread(str(images / "a.png"))
    picture = cv2.imread(str(vis[0]))
    if picture.shape != original.shape:  # small images are enlarged for a classifier's text
        original = cv2.resize(original, picture.shape[1::-1])
    assert np.abs(picture.astype(int) - original).max() > 50


def test_viewer_gives_the_pixels_back(tmp_path, images):
    viewer = Viewer.load(*write_model(tmp_path, "mmpretrain"))
    inputs, pixels = viewer.reader.read(images / "a.png")
    assert tuple(inputs.shape) == (1, 3, 64, 64)
    assert np.array_equal(pixels, cv2.imread(str(images / "a.png"))[..., ::-1])
    normalised = (pixels - np.array([120.0, 110.0, 100.0])) / np.array([60.0, 50.0, 40.0])
    np.testing.assert_allclose(inputs[0].permute(1, 2, 0), normalised, rtol=1e-5, atol=1e-5)
    assert viewer.classes == ("one", "two", "three")


def test_class_activation_predicts_as_the_inferencer_does(tmp_path, images):
    pytest.importorskip("pytorch_grad_cam")
    config, checkpoint = write_model(tmp_path, "mmpretrain")
    from mmpretrain.apis import ImageClassificationInferencer

    inferencer = ImageClassificationInferencer(config, pretrained=checkpoint, device="cpu")
    expected = inferencer(str(images / "a.png"))[0]
    _, words = class_activation(Viewer.load(config, checkpoint), images / "a.png")
    assert words == f"{expected['pred_class']} {expected['pred_score']:.2f}"


def test_class_activation_names_the_prediction(tmp_path, images):
    pytest.importorskip("pytorch_grad_cam")
    viewer = Viewer.load(*write_model(tmp_path, "mmpretrain"))
    picture, words = class_activation(viewer, images / "a.png")
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    with torch.no_grad():
        scores = viewer.model(viewer.reader.read(images / "a.png")[0], mode="tensor").softmax(1)[0]
    assert words == f"{viewer.classes[int(scores.argmax())]} {float(scores.max()):.2f}"
    other, words = class_activation(viewer, images / "a.png", "backbone.blocks.0", category=2)
    assert words.startswith("three")
    assert not np.array_equal(other, picture)
    with pytest.raises(ValueError, match="no module 'neck'"):
        class_activation(viewer, images / "a.png", "neck")
    with pytest.raises(ValueError, match="unknown class 3; choose from 0 to 2"):
        class_activation(viewer, images / "a.png", category=3)


def test_sheets(tmp_path, images, monkeypatch):
    pytest.importorskip("pytorch_grad_cam")
    model = write_model(tmp_path, "mmpretrain")
    out = tmp_path / "cam.png"
    run_tool(monkeypatch, "cam", *model, images, out, "--peer", *model)
    height, width = cv2.imread(str(out)).shape[:2]
    assert width / 3 == pytest.approx(height / 2, rel=0.3)  # three columns, a row an image
    save_feature_sheet(Viewer.load(*model), images / "a.png", tmp_path / "features.png")
    assert cv2.imread(str(tmp_path / "features.png")) is not None


def test_images_of_a_folder(images):
    assert [path.name for path in find_images(images)] == ["a.png", "b.png"]
    assert [path.name for path in find_images(images, limit=1)] == ["a.png"]
    assert find_images(images / "b.png") == [images / "b.png"]
    for limit in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            find_images(images, limit)


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (10, 501)])
def test_narrow_images_are_refused_by_their_header(tmp_path, shape):
    path = tmp_path / "narrow.png"
    cv2.imwrite(str(path), np.zeros((*shape, 3), np.uint8))
    with pytest.raises(ValueError, match="at most 50 times as long"):
        check_image(path)
    cv2.imwrite(str(path), np.zeros((10, 500, 3), np.uint8))
    check_image(path)


@pytest.mark.parametrize("scope", CONFIGS)
def test_narrow_images_and_existing_pictures_are_refused_before_the_work(
    tmp_path, images, monkeypatch, capsys, scope
):
    config, checkpoint = write_model(tmp_path, scope)
    cv2.imwrite(str(tmp_path / "narrow.png"), np.zeros((1, 4000, 3), np.uint8))
    out = tmp_path / "out"

    def refused(*arguments):
        with pytest.raises(SystemExit) as failure:
            run_tool(monkeypatch, *arguments)
        assert failure.value.code == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    narrow = tmp_path / "narrow.png"
    assert "at most 50 times" in refused("predict", config, checkpoint, narrow, out)
    features = ("features", config, checkpoint, narrow, tmp_path / "features.png")
    assert "at most 50 times" in refused(*features)
    assert not out.exists() and not (tmp_path / "features.png").exists()
    again = ("predict", config, checkpoint, images / "a.png", out)
    run_tool(monkeypatch, *again)
    (picture,) = out.rglob("a.png")
    picture.write_text("precious")
    assert "exists already; pass --overwrite" in refused(*again)
    assert picture.read_text() == "precious"
    run_tool(monkeypatch, *again, "--overwrite")
    assert cv2.imread(str(picture)) is not None
    assert not list(tmp_path.glob(".*"))


def test_sheets_replace_nothing_unasked(tmp_path, images, monkeypatch, capsys):
    model = write_model(tmp_path, "mmpretrain")
    out = tmp_path / "sheet.png"
    out.write_text("precious")
    for arguments, message in [
        (("features", *model, images, out), "exists already; pass --overwrite"),
        (("features", *model, images, images / "a.png", "--overwrite"), "is also an input"),
        (("features", *model, images, out, "--limit", "0"), "at least 1"),
    ]:
        with pytest.raises(SystemExit) as failure:
            run_tool(monkeypatch, *arguments)
        assert failure.value.code == 1
        assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert out.read_text() == "precious"
    assert cv2.imread(str(images / "a.png")).shape == (64, 64, 3)
    run_tool(monkeypatch, "features", *model, images, out, "--overwrite")
    assert cv2.imread(str(out)) is not None


def test_refusals_are_one_line(tmp_path, images, monkeypatch, capsys):
    model = write_model(tmp_path, "mmpretrain")
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        (("cam", *model, tmp_path / "nowhere", tmp_path / "a.png"), "no image or folder"),
        (("cam", *model, tmp_path / "empty", tmp_path / "a.png"), "no image ("),
        (("cam", *model, images, tmp_path / "a.jpg"), "must be a .png file"),
        (("features", *model, images / "notes.txt", tmp_path / "a.png"), "cannot be read"),
        (("predict", model[0], tmp_path / "no.pth", images, tmp_path / "x"), "no.pth"),
    ]:
        with pytest.raises(SystemExit) as failure:
            run_tool(monkeypatch, *arguments)
        assert failure.value.code == 1
        shown = capsys.readouterr().err.strip().splitlines()[-1]
        assert shown.startswith("error: ") and message in shown
    assert not (tmp_path / "a.png").exists() and not (tmp_path / "x").exists()


def test_no_visualizer_is_said(tmp_path, images):
    config, checkpoint = write_model(tmp_path, "mmseg")
    text = Path(config).read_text().split("visualizer = ")[0]
    Path(config).write_text(text)
    with pytest.raises(ValueError, match="has no visualizer"):
        draw_predictions(config, checkpoint, [images / "a.png"], tmp_path / "out")


def test_cam_refuses_a_segmenter(tmp_path, images):
    pytest.importorskip("pytorch_grad_cam")
    viewer = Viewer.load(*write_model(tmp_path, "mmseg"))
    with pytest.raises(ValueError, match="is not a classifier"):
        class_activation(viewer, images / "a.png")
