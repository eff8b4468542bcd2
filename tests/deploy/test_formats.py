"""All formats: each file computes what the model does, carries its metadata, or does not appear."""

import json
from pathlib import Path

import pytest
import torch

from mmvanilla import VanillaNet, fuse_model
from mmvanilla.deploy.exporting import export_model, require_packages
from mmvanilla.deploy.formats import FORMATS, find_format
from tests.deploy.export_models import (
    ADAPTIVE,
    TINY,
    build_backbone,
    build_classifier,
    build_segmenter,
)
from tests.deploy.runner_models import META, classifier_config, save
from tests.helpers import randomise

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporters, about their own future


def formats(*always):
    """All formats as parameters; those that are not named here run with the exhaustive tests."""
    return [
        pytest.param(name, marks=[] if name in always else pytest.mark.exhaustive)
        for name in FORMATS
    ]


@pytest.fixture(params=list(FORMATS))
def target(request):
    for package in FORMATS[request.param].packages:
        pytest.importorskip(package)
    return FORMATS[request.param]


def run_file(target, path, images):
    return [torch.from_numpy(each) for each in target.open(path)[0](images.numpy())]


def read_metadata(path):
    """The metadata of any format, read as a user would: without our code."""
    if path.suffix == ".onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    if path.suffix == ".xml":
        import openvino

        return openvino.Core().read_model(str(path)).get_rt_info(["mmvanilla"]).value
    if path.suffix in (".param", ".tflite", ".pte"):
        return json.loads(path.with_name(f"{path.name}.json").read_text())
    files = {"mmvanilla.json": ""}
    if path.suffix == ".pt":
        torch.jit.load(str(path), _extra_files=files)
    else:
        torch.export.load(str(path), extra_files=files)
    return json.loads(files["mmvanilla.json"])


def test_no_two_formats_have_a_file_in_common():
    files = [path for each in FORMATS.values() for path in each.files(Path(f"net{each.suffix}"))]
    assert len(files) == len({*files})


def test_every_format_runs_open_batches_and_tells_its_preprocessing(target, tmp_path):
    model = build_classifier()
    out = tmp_path / f"net{target.suffix}"
    metadata = dict(classes=json.dumps(["a", "b", "c", "d", "ä"]))
    report = export_model(model, out, target, size=(96, 64), metadata=metadata)
    assert (report.metadata["part"], report.metadata["outputs"]) == ("classifier", "logits")
    assert report.max_difference < 1e-5
    assert set(tmp_path.iterdir()) == set(target.files(out))
    assert not model.backbone.deploy  # the model that was given is as it was
    sizes = [(96, 64), (75, 101)] if target.has_open_size else [(96, 64)]
    assert report.metadata["input_size"] == ("any" if target.has_open_size else "96x64")
    assert {shape[0] for shape in report.compared_shapes} >= {1, 3}
    for size in sizes:
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            (found,), expected = run_file(target, out, images), model(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    entries = read_metadata(out)
    preprocessing = json.loads(entries["preprocessing"])
    assert preprocessing["inside_graph"] is False and preprocessing["channel_order"] == "RGB"
    assert (preprocessing["mean"], preprocessing["std"]) == ([1, 2, 3], [4, 5, 6])
    assert json.loads(entries["classes"])[-1] == "ä"
    assert entries["input_size"] == report.metadata["input_size"]


@pytest.mark.parametrize("target", formats("onnx"), indirect=True)
@pytest.mark.parametrize("head", ["LinearClsHead", "MultiLabelLinearClsHead"])
def test_scores_are_those_of_the_models_own_predict(target, head, tmp_path):
    model = build_classifier(head)
    out = tmp_path / f"net{target.suffix}"
    report = export_model(model, out, target, size=(64, 64), softmax=True, dynamic=False)
    assert report.metadata["outputs"] == "probabilities"
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected = torch.stack([each.pred_score for each in model(images, mode="predict")])
    (found,) = run_file(target, out, images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", formats("onnx", "openvino"), indirect=True)
def test_every_format_exports_a_segmenter_with_pyramid_pooling(target, tmp_path):
    model = build_segmenter()
    out = tmp_path / f"net{target.suffix}"
    if target.name == "ncnn":
        with pytest.raises(RuntimeError, match="ncnn does not know a layer"):
            export_model(model, out, target, size=(64, 96))
        return
    report = export_model(model, out, target, size=(64, 96))
    assert report.metadata["part"] == "segmenter"
    images = torch.randn(1, 3, *((75, 170) if target.has_open_size else (64, 96)))
    with torch.no_grad():
        (found,), expected = run_file(target, out, images), model(images, mode="tensor")
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_every_format_gives_all_levels_of_a_backbone_of_one_size(target, tmp_path):
    model = build_backbone(ADAPTIVE)
    out = tmp_path / f"net{target.suffix}"
    report = export_model(model, out, target, size=(64, 64))  # it knows its one size
    assert report.metadata["input_size"] == "26x26"
    images = torch.randn(1, 3, 26, 26)
    with torch.no_grad():
        expected = model(images)
    for ours, theirs in zip(expected, run_file(target, out, images), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_weights_are_equalised_where_that_is_exact(tmp_path):
    gelu = randomise(VanillaNet(TINY, act_cfg=dict(type="GELU"))).eval()
    models = (build_classifier(), build_classifier().backbone, gelu)
    for index, (model, expected) in enumerate(zip(models, ("yes", "yes", "no: "), strict=True)):
        out = tmp_path / f"{index}.pt"
        report = export_model(model, out, FORMATS["torchscript"], size=(64, 64), part="backbone")
        assert report.metadata["equalised"].startswith(expected)
        assert read_metadata(out)["equalised"] == report.metadata["equalised"]
        weights = torch.jit.load(str(out)).state_dict()
        fused = fuse_model(model).state_dict()
        name = next(each for each in fused if each.endswith("blocks.0.conv.weight"))
        changed = (weights[f"model.{name}"] != fused[name]).any()
        assert changed == (expected == "yes")


def test_every_format_leaves_nothing_of_a_wrong_file(target, tmp_path):
    out = tmp_path / f"net{target.suffix}"
    model = build_backbone()
    reason = f"{target.runtime}'s outputs differ from PyTorch's by .*nothing was written"
    with pytest.raises(RuntimeError, match=reason):
        export_model(model, out, target, size=(64, 64), dynamic=False, tolerance=-1.0)
    model = fuse_model(model)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(RuntimeError, match=r"differ from PyTorch's by nan"):
        export_model(model, out, target, size=(64, 64), dynamic=False)
    assert list(tmp_path.iterdir()) == []


def test_the_suffix_tells_the_format(tmp_path):
    assert [find_format(f"a{entry.suffix}") for entry in FORMATS.values()] == [*FORMATS.values()]
    with pytest.raises(ValueError, match=r"a\.pth does not tell its format.* \.onnx \(onnx\)"):
        find_format("a.pth")
    with pytest.raises(ValueError, match=r"must be an \.onnx file, found .*a\.pt2"):
        export_model(build_backbone(), tmp_path / "a.pt2", FORMATS["onnx"])


def test_what_is_missing_is_named(monkeypatch):
    with pytest.raises(ImportError, match="gone_one gone_two is not installed; run `pip install"):
        require_packages("json", "gone_one", "gone_two")
    monkeypatch.setattr(torch, "__version__", "2.1.2+cpu")
    with pytest.raises(ImportError, match=r"needs torch 2\.6 or newer, found 2\.1\.2"):
        require_packages()


@pytest.fixture
def trained(tmp_path):
    """A config and a checkpoint of a classifier, in a folder of their own."""
    pytest.importorskip("mmpretrain.models")
    return save(classifier_config([]), tmp_path / "given")[:2]


@pytest.mark.parametrize("target", formats("torchscript"), indirect=True)
def test_tool_takes_the_format_from_the_suffix(target, trained, tmp_path, run_tool):
    out = tmp_path / f"net{target.suffix}"
    status, printed = run_tool("export", *trained, out, "--shape", 64, 64)
    assert status == 0, printed.err
    assert f"{out}: classifier" in printed.out and f"run by {target.runtime}" in printed.out
    assert json.loads(read_metadata(out)["classes"]) == META["classes"]


def test_tool_refuses_before_the_work(trained, tmp_path, run_tool):
    config, weights = trained
    for name in ("there.pt", "net.bin"):
        (tmp_path / name).write_text("precious")
    refused = {
        ("net.xml",): "net.bin exists",
        ("a.pth",): "does not tell its format",
        ("a.pt", "--with-runner"): "predict.py runs .onnx, .xml, .param, ",
        ("a.onnx", "--part", "segmenter"): "ImageClassifier is not a segmenter; choose",
        ("a.pt", "--shape", 0, 64): "at least 1, found 0 and 64",
        ("there.pt",): "there.pt exists",
        ("link.pt", "--overwrite"): "is also an input",
    }
    (tmp_path / "link.pt").symlink_to(weights)
    before = set(tmp_path.rglob("*"))
    for (name, *options), reason in refused.items():
        status, printed = run_tool("export", *trained, tmp_path / name, *options)
        last = printed.err.splitlines()[-1]
        assert status == 1 and last.startswith("error: ") and reason in last, (name, options, last)
    assert set(tmp_path.rglob("*")) == before
    assert {(tmp_path / name).read_text() for name in ("there.pt", "net.bin")} == {"precious"}
