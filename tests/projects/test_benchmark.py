"""The benchmark in seconds: every form runs or says why not, and the reference is one."""

import json

import pytest
import torch

from mmvanilla.checkpoints.authors_keys import convert_authors
from mmvanilla.models.archs import resolve_arch
from projects.benchmark import main
from projects.benchmark.networks import PEERS, build, calibrate
from projects.benchmark.reference import ReferenceVanillaNet
from projects.benchmark.runtimes import FORMS, forms_of

pytestmark = pytest.mark.exhaustive

NARROW = ["--archs", "5", "--width-mult", "0.0625", "--size", "64", "64", "--rounds", "2"]


@pytest.mark.parametrize("deploy", [False, True])
def test_the_reference_computes_what_our_network_computes(deploy):
    arch = resolve_arch("7", 1 / 16)
    reference = ReferenceVanillaNet(arch, deploy)
    calibrate(reference, 64)
    ours = build("7", width_mult=1 / 16)
    model = ours.fused if deploy else ours.model
    model.load_state_dict(convert_authors(reference.state_dict()).state_dict)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = reference(images), model(images)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_networks_compute_the_same_fused():
    for name in ("6", *PEERS):
        network = build(name, width_mult=1 / 16)
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            expected, found = network.model(images), network.fused(images)
        assert found.shape == (1, 1000)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_every_form_is_measured_and_reported(tmp_path, capsys):
    args = [*NARROW, "--modes", "forward", "features", "train", "--batches", "2"]
    assert main.main([*args, "--feature-size", "64", "96", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "benchmark.json").read_text())
    results = report["results"]
    assert {entry["mode"] for entry in results} == {"forward", "features", "train"}
    missing = {entry["form"]: entry["not_measured"] for entry in results if "ms" not in entry}
    known = ("ImportError", "ModuleNotFoundError", "ValueError: this CPU")
    assert all(why.startswith(known) or form == "compiled" for form, why in missing.items())
    forms = {entry["form"] for entry in results if entry["mode"] == "forward"}
    assert forms == set(forms_of(torch.device("cpu"))) == set(FORMS) - {"cuda_graph"}
    for entry in results:
        assert entry.get("gmacs", entry.get("saved_mb", 0)) > 0, entry
    saved = {(e["network"], e["form"]): e["saved_mb"] for e in results if e["mode"] == "train"}
    step = "training step"
    assert saved["VanillaNet-5, with_cp", step] < saved["VanillaNet-5", step]
    assert saved["VanillaNet-5", f"{step}, fused"] < saved["VanillaNet-5", step]
    assert saved["VanillaNet-5", step] < saved["reference-5", step]
    text = (tmp_path / "benchmark.md").read_text()
    assert text in capsys.readouterr().out and "VanillaNets against reference" in text
    assert main.main([*args, "--out", str(tmp_path)]) == 1  # the report is there
