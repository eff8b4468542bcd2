"""All formats: each file computes what PyTorch does, carries its metadata, or does not appear."""

import json
import runpy
import subprocess
import sys

import pytest
import torch

from mmvanilla.deploy.exporting import RUNNER_NAME, export_model
from mmvanilla.deploy.formats import FORMATS, find_format
from mmvanilla.deploy.onnx_export import EXPORTERS
from tests.deploy.test_onnx_export import (
    ADAPTIVE,
    CONFIG,
    build_backbone,
    build_classifier,
    build_segmenter,
)
from tests.helpers import ROOT

# The packages that a format needs.
NEEDS = {
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "onnxruntime", "openvino"),
    "torchscript": (),
    "torch_export": (),
}
pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporters, about their own future


@pytest.fixture(params=list(FORMATS))
def target(request):
    for package in NEEDS[request.param]:
        pytest.importorskip(package)
    if request.param == "torch_export" and not hasattr(torch.export, "Dim"):
        pytest.skip("this torch has no torch.export with open sizes")
    return FORMATS[request.param]


def read_metadata(path):
    """The metadata of any format, read as a user would: without our code."""
    if path.suffix == ".onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    if path.suffix == ".xml":
        import openvino

        return openvino.Core().read_model(str(path)).get_rt_info(["mmvanilla"]).value
    files = {"mmvanilla.json": ""}
    if path.suffix == ".pt":
        torch.jit.load(str(path), _extra_files=files)
    else:
        torch.export.load(str(path), extra_files=files)
    return json.loads(files["mmvanilla.json"])


def test_every_format_runs_any_size_and_tells_its_preprocessing(target, tmp_path):
    model = build_classifier()
    out = tmp_path / f"net{target.suffix}"
    metadata = dict(classes=json.dumps(["a", "b", "c", "d", "ä"]))
    report = export_model(model, out, target, size=(96, 96), metadata=metadata)
    assert report.dynamic and report.part == "classifier"
    assert report.max_difference < 1e-5
    assert len(report.compared_shapes) == 4
    assert {path for path in tmp_path.iterdir()} == set(target.files(out))
    assert report.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    images = torch.randn(2, 3, *((75, 101) if target.multiple == 1 else (64, 160)))
    with torch.no_grad():
        (found,), expected = target.open(out)(images), model(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    entries = read_metadata(out)
    assert json.loads(entries["preprocessing"])["mean"] == [1.0, 2.0, 3.0]
    assert json.loads(entries["classes"])[-1] == "ä"
    assert entries["input_size"] == ("any" if target.multiple == 1 else "multiples of 32")


def test_every_format_exports_a_segmenter_with_pyramid_pooling(target, tmp_path):
    out = tmp_path / f"net{target.suffix}"
    report = export_model(build_segmenter(), out, target, size=(96, 96))
    assert (report.part, report.dynamic) == ("segmenter", True)


def test_every_format_gives_all_levels_of_a_backbone_of_one_size(target, tmp_path):
    out = tmp_path / f"net{target.suffix}"
    report = export_model(build_backbone(ADAPTIVE), out, target, size=(64, 64))
    assert not report.dynamic
    assert len(target.open(out)(torch.randn(1, 3, 26, 26))) == len(report.output_names)


def test_every_format_leaves_nothing_of_a_wrong_file(target, tmp_path):
    out = tmp_path / f"net{target.suffix}"
    with pytest.raises(RuntimeError, match=f"{target.runtime}'s outputs differ from PyTorch's"):
        # Another order of sums already differs by more.
        export_model(build_segmenter(), out, target, size=(64, 64), dynamic=False, tolerance=-1.0)
    assert list(tmp_path.iterdir()) == []


def test_half_precision_halves_the_file_and_keeps_float32_outside(target, tmp_path):
    out, half = (tmp_path / f"{name}{target.suffix}" for name in ("net", "half"))
    model = build_classifier()
    if not target.has_fp16:
        with pytest.raises(ValueError, match="exported in fp32 alone; leave --fp16 out"):
            export_model(model, half, target, size=(64, 64), fp16=True)
        assert not half.exists()
        return
    export_model(model, out, target, size=(64, 64))
    report = export_model(model, half, target, size=(64, 64), fp16=True)
    assert 1e-6 < report.max_difference < 1e-2
    weights = sum(value.nbytes for value in model.backbone.stem.state_dict().values())
    saved = target.files(out)[-1].stat().st_size - target.files(half)[-1].stat().st_size
    assert saved > weights / 4  # of the many weights, those of the fused stem
    (found,) = target.open(half)(torch.randn(1, 3, 64, 64))
    assert found.dtype == torch.float32
    assert read_metadata(half)["precision"] == "fp16"


def test_no_file_of_several_is_replaced_without_being_asked(tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    (tmp_path / "net.bin").write_text("precious")
    with pytest.raises(FileExistsError, match=r"net\.bin exists"):
        export_model(build_backbone(), tmp_path / "net.xml", FORMATS["openvino"], size=(64, 64))
    assert [path.name for path in tmp_path.iterdir()] == ["net.bin"]
    assert (tmp_path / "net.bin").read_text() == "precious"


def test_the_suffix_tells_the_format(tmp_path):
    assert [find_format(f"a{entry.suffix}") for entry in FORMATS.values()] == [*FORMATS.values()]
    assert find_format("a.pt2", "onnx").name == "onnx"
    assert find_format("a.onnx", None, EXPORTERS[1]).name == "onnx"
    with pytest.raises(ValueError, match=r"a\.pth does not tell its format .* \.onnx \(onnx\)"):
        find_format("a.pth")
    with pytest.raises(ValueError, match="unknown format 'keras'; choose from onnx, openvino"):
        find_format("a.onnx", "keras")
    with pytest.raises(ValueError, match="can be chosen for onnx, not for openvino"):
        find_format("a.xml", None, "dynamo")
    with pytest.raises(ValueError, match=r"must be an \.onnx file, found .*a\.pt2"):
        export_model(build_backbone(), tmp_path / "a.pt2", FORMATS["onnx"])


def run_tool(monkeypatch, capsys, *args, tool="export.py"):
    """Run a tool in this process; its exit status and what it printed."""
    monkeypatch.setattr(sys, "argv", [tool, *map(str, args)])
    status = 0
    try:
        runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture
def trained(tmp_path):
    """A config and a checkpoint of a classifier, in a folder of their own."""
    model = build_classifier()
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "cls.py").write_text(CONFIG)
    meta = dict(dataset_meta=dict(classes=["a", "b", "c", "d", "e"]))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), folder / "cls.pth")
    return folder / "cls.py", folder / "cls.pth"


@pytest.mark.parametrize("suffix", [".xml", ".pt", ".pt2"])
def test_tool_takes_the_format_from_the_suffix(suffix, trained, tmp_path, monkeypatch, capsys):
    for package in NEEDS[find_format(f"a{suffix}").name]:
        pytest.importorskip(package)
    if suffix == ".pt2" and not hasattr(torch.export, "Dim"):
        pytest.skip("this torch has no torch.export with open sizes")
    out = tmp_path / f"net{suffix}"
    done = run_tool(monkeypatch, capsys, *trained, out, "--shape", 96, 96)
    assert done[0] == 0, done[2]
    assert f"{out}: classifier" in done[1] and "height and width" in done[1]
    assert json.loads(read_metadata(out)["classes"]) == ["a", "b", "c", "d", "e"]


def test_tool_refuses_before_the_work(trained, tmp_path, monkeypatch, capsys):
    refused = {
        ("a.pth",): "does not tell its format by its suffix",
        ("a.pt", "--with-runner"): "predict.py serves onnx, openvino, not torchscript",
        ("a.pt", "--part", "detector"): "exports whole detectors to onnx, not to torchscript",
        ("a.onnx", "--part", "detector"): "needs --images",
        ("a.pt2", "--exporter", "dynamo"): "can be chosen for onnx, not for torch_export",
        ("a.pt2", "--shape", 75, 96): "leave open only multiples of 32 pixels from 64 on",
        ("a.pt", "--fp16"): "exported in fp32 alone",
        ("nowhere/a.pt",): "no folder",
    }
    for (name, *options), reason in refused.items():
        status, _, errors = run_tool(monkeypatch, capsys, *trained, tmp_path / name, *options)
        assert status == 1
        last = errors.splitlines()[-1]
        assert last.startswith("error: ") and reason in last, (name, options, last)
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def test_the_runner_is_copied_beside_the_file(trained, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    copy = tmp_path / RUNNER_NAME
    options = ("--shape", 64, 64, "--with-runner")
    status, _, errors = run_tool(monkeypatch, capsys, *trained, tmp_path / "a.onnx", *options)
    assert status == 0
    # This config has no test pipeline, so nobody knows how images are read.
    assert "predict.py will refuse this file: its config has no test_dataloader" in errors
    assert copy.read_bytes() == (ROOT / "mmvanilla" / "deploy" / "runner.py").read_bytes()
    # The same copy serves a second model; another predict.py is not ours to replace.
    assert run_tool(monkeypatch, capsys, *trained, tmp_path / "b.onnx", *options)[0] == 0
    copy.write_text("mine")
    status, _, errors = run_tool(monkeypatch, capsys, *trained, tmp_path / "c.onnx", *options)
    assert status == 1 and "predict.py exists" in errors
    assert copy.read_text() == "mine" and not (tmp_path / "c.onnx").exists()


def test_the_first_name_of_the_tool_writes_onnx_alone(trained, tmp_path):
    pytest.importorskip("onnxruntime")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "export_onnx.py", *trained, tmp_path / "a.xml"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert "must be an .onnx file" in done.stderr.splitlines()[-1]
