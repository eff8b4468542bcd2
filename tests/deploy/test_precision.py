"""Fewer bits: each form is what its name says, and layers can be kept in fp32."""

import runpy
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

pytest.importorskip("onnxruntime.quantization")
pytest.importorskip("mmpretrain.models")

from projects.studies.page_tables import marks  # noqa: E402
from mmvanilla.deploy.accuracy import Samples  # noqa: E402
from mmvanilla.deploy.onnx_quantize import list_layers, quantize_file  # noqa: E402
from projects.studies.precision import compare_precisions  # noqa: E402
from mmvanilla.deploy.quantize import RUNTIMES, quantize_classifier  # noqa: E402
from tests.deploy.test_quantize import (  # noqa: E402, F401
    exported,
    has_openvino,
    int8_convolutions,
    needs_openvino,
)
from tests.helpers import ROOT, randomise  # noqa: E402


@pytest.fixture(scope="module")
def trained(exported):  # noqa: F811
    """A config and a checkpoint in training form."""
    cfg, onnx_file = exported
    init_default_scope("mmpretrain")
    torch.manual_seed(1)
    model = randomise(MODELS.build(dict(cfg.model, data_preprocessor=dict(cfg.data_preprocessor))))
    checkpoint = onnx_file.with_name("trained.pth")
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return Config.fromfile(onnx_file.with_name("cfg.py")), str(checkpoint)


def test_every_form_is_measured_on_the_same_images(trained):
    forms = {
        form.name: form for form in compare_precisions(*trained, calibrations=(4, 8), rounds=2)
    }
    names = list(forms)
    assert names[:2] == ["PyTorch fp32, as trained", "PyTorch fp32, fused"]
    assert "PyTorch bf16, cast" in names and forms[names[1]].agreement == 100
    assert [name for name in names if name.startswith("ONNX Runtime")] == [
        "ONNX Runtime fp32",
        *(
            f"ONNX Runtime int8, {count} images, a scale a {scales}"
            for count in (4, 8)
            for scales in ("channel", "layer")
        ),
    ]
    assert ("OpenVINO int8, 8 images, a scale a channel" in names) == has_openvino()
    errors = {name: form.logit_error for name, form in forms.items()}
    assert errors["PyTorch fp32, as trained"] == 0
    assert max(errors["PyTorch fp32, fused"], errors["ONNX Runtime fp32"]) < 0.01
    assert 0.01 < errors["PyTorch bf16, cast"] < 10
    int8 = [error for name, error in errors.items() if "int8" in name]
    assert all(0.1 < error < 50 for error in int8)
    assert len(set(int8)) == len(int8)  # no two are the same file
    sizes = {name: form.size_bytes for name, form in forms.items()}
    assert sizes["PyTorch bf16, cast"] * 2 == sizes["PyTorch fp32, fused"]
    assert sizes["PyTorch fp32, fused"] < sizes["PyTorch fp32, as trained"]
    assert all(form.latency.median > 0 for form in forms.values())
    for form in forms.values():  # of 12 images
        assert form.accuracy * 12 / 100 == pytest.approx(round(form.accuracy * 12 / 100))


def test_each_layer_is_measured_alone(trained):
    reference, *layers = compare_precisions(*trained, calibrations=(8,), rounds=0, by_layer=True)
    assert reference.name == "ONNX Runtime fp32" and reference.latency is None
    assert len(layers) == 9  # stem, three blocks, each with an activation, and the classifier
    assert all(0 < layer.logit_error < 50 for layer in layers)
    assert len({layer.logit_error for layer in layers}) == len(layers)


@pytest.mark.parametrize("wrong", [dict(rounds=1), dict(rounds=-1), dict(calibrations=())])
def test_numbers_are_checked_before_the_work(trained, wrong):
    with pytest.raises(ValueError, match="at least 2 rounds, found"):
        compare_precisions(*trained, **wrong)


def test_layers_can_be_kept_in_fp32(exported, tmp_path):  # noqa: F811
    cfg, model = exported
    stem, *_, classifier = list_layers(model)
    quantize_classifier(
        cfg, model, tmp_path / "int8.onnx", calibration_images=4, rounds=2, keep_float=[stem]
    )
    assert int8_convolutions(tmp_path / "int8.onnx") == {True: 4, False: 4}
    images = Samples(cfg, "train", 4).images()
    quantize_file(model, tmp_path / "one.onnx", images, only=[classifier])
    assert int8_convolutions(tmp_path / "one.onnx") == {True: 0, False: 1}


@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".xml", marks=needs_openvino)])
def test_unknown_layers_are_refused(exported, tmp_path, suffix):  # noqa: F811
    cfg, model = exported
    images = Samples(cfg, "train", 2).images()
    runtime = RUNTIMES[suffix]
    with pytest.raises(ValueError, match=r"no layer 'stem'; choose from .*conv"):
        runtime.quantize(
            model.with_suffix(suffix), tmp_path / f"int8{suffix}", images, keep_float=["stem"]
        )
    assert not list(tmp_path.iterdir())


def test_tool_prints_and_writes_a_table(trained, tmp_path, monkeypatch, capsys):
    cfg, checkpoint = trained
    page = tmp_path / "page.md"
    page.write_text("\n".join(marks("bits")))
    arguments = [cfg.filename, checkpoint, "--calibration-images", "4", "--rounds", "0"]
    arguments += ["--write", str(page), "bits"]
    monkeypatch.setattr(sys, "argv", ["compare_precisions.py", *arguments, "--test-images", "6"])
    runpy.run_path(str(ROOT / "tools" / "compare_precisions.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| form | top-1 % | as PyTorch fp32, as trained % |")
    assert (
        lines[2].startswith("| PyTorch fp32, as trained | ")
        and "| 100.00 | 0.00 | – | – |" in lines[2]
    )
    assert "\n".join(lines) in page.read_text()
    monkeypatch.setattr(sys, "argv", ["compare_precisions.py", *arguments, "--test-images", "0"])
    with pytest.raises(SystemExit) as failure:
        runpy.run_path(str(ROOT / "tools" / "compare_precisions.py"), run_name="__main__")
    assert failure.value.code == 1
    assert "test_images must be at least 1" in capsys.readouterr().err
