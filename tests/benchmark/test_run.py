"""What is timed computes what it should, and the counts and refusals around it."""

import json
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mmvanilla.analysis.timing import time_interleaved
from mmvanilla.apis.model import TensorModel
from mmvanilla.benchmark.machine import describe_machine, peak_memory, saved_for_backward
from mmvanilla.models.archs import ARCHS, Arch, resolve_arch

pytest.importorskip("mmpretrain.models")

from mmvanilla.benchmark import profiling  # noqa: E402
from mmvanilla.benchmark.networks import PUBLISHED_TOP1, build_ours, build_peer, build_reference  # noqa: E402
from mmvanilla.benchmark.profiling import profile_operators  # noqa: E402
from mmvanilla.benchmark.report import (
    can_plot,
    compare_with_reference,
    make_tables,
    save_plot,
    to_markdown,
)
from mmvanilla.benchmark.run import Plan, run_benchmark  # noqa: E402
from mmvanilla.benchmark.runtimes import Unmeasurable, prepare  # noqa: E402
from mmvanilla.deploy.onnx_runtime import open_session  # noqa: E402
from tests.helpers import ROOT

# Of the variant that the fixture makes, at 64×64: stem, three 1×1 layers at their input's size,
# four series activations of 7×7, classifier.
TINY_MACS = (
    16**2 * 8 * 3 * 16
    + 16**2 * 8 * 16
    + 8**2 * 16 * 24
    + 4**2 * 24 * 32
    + 49 * (16**2 * 8 + 8**2 * 16 + 4**2 * 24 + 2**2 * 32)
    + 32 * 1000
)
CPU = torch.device("cpu")


@pytest.fixture
def tiny(monkeypatch):
    """Short name of a variant that is measured in a moment."""
    monkeypatch.setitem(ARCHS, "tiny", Arch(dims=(8, 16, 24, 32), strides=(2, 2, 2)))
    monkeypatch.setitem(PUBLISHED_TOP1, "tiny", 12.34)
    return "tiny"


def test_times_are_taken_in_turns_and_without_the_warm_up():
    calls = []
    ticks = []
    runs = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    timings = time_interleaved(runs, rounds=3, warmup=2, advance=lambda: ticks.append(1))
    assert "".join(calls) == "ab" * 5
    assert len(ticks) == 10
    assert {timing.rounds for timing in timings.values()} == {3}
    for timing in timings.values():
        assert 0 < timing.fastest <= timing.low <= timing.median <= timing.high <= timing.slowest


@pytest.mark.parametrize(("rounds", "warmup"), [(1, 2), (3, -1)])
def test_too_few_rounds_are_refused(rounds, warmup):
    with pytest.raises(ValueError, match="at least 2 rounds"):
        time_interleaved({"a": int}, rounds, warmup)


def test_saved_bytes_count_each_tensor_once_and_no_parameter():
    layer = nn.Linear(10, 10, bias=False)
    images = torch.randn(4, 10)

    def forward():
        out = layer(images)  # saves its input (160 bytes) and its weight, a parameter
        return (out * out).sum()  # saves the same tensor twice: 160 bytes

    assert saved_for_backward(forward, layer.parameters()) == 320


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts it")
def test_peak_memory_sees_what_a_run_takes():
    size = 64 * 2**20
    peak = peak_memory(lambda: torch.ones(size // 4), CPU)
    if peak is None:
        pytest.skip("this kernel does not let its high-water mark be reset")
    assert 0.9 * size < peak < 2 * size


def test_machine_is_named():
    machine = describe_machine(CPU)
    assert machine["cpu"] and machine["threads"] >= 1
    # The metadata of some builds have the version of CUDA, too, as in 2.10.0+cu128.
    assert machine["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


@pytest.mark.parametrize("form", ["training", "fused"])
def test_reference_computes_what_ours_does(tiny, form):
    ours = build_ours(tiny)
    reference = build_reference(ours)
    images = torch.randn(2, 3, 64, 96)
    expected = prepare(ours, form, images)()
    found = prepare(reference, form, images)()
    assert found.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    features = prepare(reference, form, images, features=True)()
    torch.testing.assert_close(
        features, prepare(ours, form, images, features=True)()[-1], rtol=1e-4, atol=1e-4
    )


def test_reference_computes_every_leaky_relu(tiny, monkeypatch):
    calls = []
    original = torch.nn.functional.leaky_relu
    monkeypatch.setattr(
        torch.nn.functional,
        "leaky_relu",
        lambda *args, **kw: calls.append(1) or original(*args, **kw),
    )
    ours = build_ours(tiny)
    build_reference(ours).model(torch.randn(1, 3, 64, 64))
    assert len(calls) == 5  # stem, three blocks, classifier


def test_forward_is_measured_in_each_form(tiny, tmp_path):
    plan = Plan(
        archs=(tiny,),
        forms=("training", "fused", "channels_last", "packed", "onnxruntime", "int8", "cuda_graph"),
        sizes=((64, 64),),
        rounds=2,
        warmup=0,
        profile=True,
    )
    steps = []
    report = run_benchmark(plan, lambda what, done, total: steps.append((what, done, total)))
    by_key = {(entry["kind"], entry["form"]): entry for entry in report["results"]}
    assert set(by_key) == {
        *(("ours", form) for form in plan.forms),
        ("reference", "training"),
        ("reference", "fused"),
    }
    assert by_key["ours", "fused"]["ms"]["median"] > 0
    assert by_key["ours", "fused"]["published_top1"] == 12.34
    if not torch.cuda.is_available():
        assert "CUDA" in by_key["ours", "cuda_graph"]["not_measured"]
        assert "ms" not in by_key["ours", "cuda_graph"]
    timed = [(done, total) for what, done, total in steps if what.startswith("timing")]
    assert timed[-1] == (16, 16)
    assert json.loads(json.dumps(report))["plan"]["archs"] == [tiny]
    assert {ratio["form"] for ratio in report["speedups"]} == set(plan.forms) - {"cuda_graph"}
    assert can_plot(report)
    save_plot(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    (ratio,) = report["onnxruntime_ratios"]
    assert (ratio["form"], ratio["archs"]) == ("int8", [tiny])
    medians = [by_key["ours", form]["ms"]["median"] for form in ("onnxruntime", "int8")]
    assert ratio["times_as_fast"] == pytest.approx(medians[0] / medians[1])
    # The machine, the times, the two tables of ratios, and a profile of each that was run.
    assert len(make_tables(report).renderables) == 4 + 8
    text = to_markdown(report)
    assert text.startswith(report["machine"]["cpu"])
    assert "| VanillaNet-tiny | fused |" in text and "| reference-tiny | fused |" in text
    assert report["machine"]["peak_gflops"]["fp32"] > 0
    fused, reference = by_key["ours", "fused"], by_key["reference", "fused"]
    # Convolutions of 8, 16, 24 and 32 channels at 1/4 to 1/32 of 64×64, and 1000 classes.
    assert fused["gmacs"] == reference["gmacs"] == pytest.approx(TINY_MACS / 1e9)
    assert by_key["ours", "training"]["gmacs"] > fused["gmacs"]
    assert f"| {2e-6 * TINY_MACS / fused['ms']['median']:.0f} |" in text
    longest = by_key["ours", "packed"]["operators"][0]
    assert longest["calls"] >= 1 and longest["ms"] > 0
    assert any(
        row["operator"] == "mkldnn::_convolution_pointwise" and row["shapes"][0][1] == 8
        for row in by_key["ours", "packed"]["operators"]
    )
    assert "profile of VanillaNet-tiny packed" in text


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_weights_are_frozen(monkeypatch):
    """As an option of torch.compile freezing is ignored, and plain convolutions are called."""
    monkeypatch.setitem(ARCHS, "two", Arch(dims=(16, 32), strides=(2,)))
    monkeypatch.setitem(PUBLISHED_TOP1, "two", 12.34)
    run = prepare(build_ours("two"), "compiled", torch.randn(1, 3, 64, 64))
    operators = {row["operator"] for row in profile_operators(run, CPU)}
    assert "mkldnn::_convolution_pointwise" in operators
    assert "aten::mkldnn_convolution" not in operators


def test_int8_is_quantised(tiny, monkeypatch):
    files = []

    def opened(path, threads, **where):
        files.append(onnx.load(str(path)))
        return open_session(path, threads, **where)

    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr("mmvanilla.benchmark.exported.open_session", opened)
    logits = prepare(build_ours(tiny), "int8", torch.randn(1, 3, 64, 64))()[0]
    assert logits.shape == (1, 1000)
    nodes = files[-1].graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    takers = {name: node.op_type for node in nodes for name in node.input}
    pools = [node for node in nodes if node.op_type == "MaxPool"]
    assert len(pools) == 3
    for node in pools:  # between the two, it runs in int8
        assert makers[node.input[0]] == "DequantizeLinear"
        assert takers[node.output[0]] == "QuantizeLinear"


@pytest.mark.exhaustive
def test_openvino_runs_beside_onnx_runtime(tiny, monkeypatch):
    # On a busy machine one operator may take nearly all the time of so small a network.
    monkeypatch.setattr(profiling, "_LEAST", 0.0)
    pytest.importorskip("onnxruntime")
    pytest.importorskip("nncf")
    openvino = pytest.importorskip("openvino")
    plan = Plan(
        archs=(tiny,),
        reference=False,
        forms=("onnxruntime", "int8", "openvino", "openvino_int8"),
        sizes=((64, 64),),
        rounds=2,
        warmup=0,
        profile=True,
    )
    report = run_benchmark(plan)
    profiles = {entry["form"]: entry["operators"] for entry in report["results"]}
    for form, operators in profiles.items():
        times = [row["ms"] for row in operators]
        assert times == sorted(times, reverse=True) and times[-1] > 0
        assert f"profile of VanillaNet-tiny {form}" in to_markdown(report)
    # The classifier's weights as the second input; 1000 classes, rounded up to a block of 16.
    wide = [row["shapes"][-1][0] for row in profiles["onnxruntime"]]
    assert max(wide) >= 1000
    kinds = {row["operator"] for row in profiles["int8"]}
    assert "QLinearConv uint8" in kinds
    assert not kinds & {"MaxPool float", "Conv float", "FusedConv float"}
    assert all(
        row["operator"].endswith("I8")
        for row in profiles["openvino_int8"]
        if "Convolution" in row["operator"]
    )
    assert [entry["form"] for entry in report["results"]] == list(plan.forms)
    medians = {entry["form"]: entry["ms"]["median"] for entry in report["results"]}
    ratios = {row["form"]: row["times_as_fast"] for row in report["onnxruntime_ratios"]}
    assert list(ratios) == ["int8", "openvino", "openvino_int8", "faster int8"]
    assert ratios["faster int8"] == pytest.approx(max(ratios["int8"], ratios["openvino_int8"]))
    assert ratios["openvino"] == pytest.approx(medians["onnxruntime"] / medians["openvino"])
    text = to_markdown(report)
    assert f"openvino {openvino.__version__.partition('-')[0]}" in text
    assert all(name in text for name in report["machine"]["instructions"])
    images = torch.randn(1, 3, 64, 64)
    network = build_ours(tiny)
    logits = {form: prepare(network, form, images)() for form in plan.forms[::2]}
    np.testing.assert_allclose(
        logits["openvino"][0], logits["onnxruntime"][0], rtol=1e-3, atol=1e-4
    )


def test_features_and_training_steps(tiny):
    plan = Plan(
        modes=("features", "train"),
        archs=(tiny,),
        forms=("fused",),
        sizes=((64, 64),),
        batches=(2,),
        feature_size=(64, 96),
        rounds=2,
        warmup=0,
        channels_last=True,
    )
    report = run_benchmark(plan)
    features = [entry for entry in report["results"] if entry["mode"] == "features"]
    assert [(entry["batch"], entry["height"], entry["width"]) for entry in features] == [
        (1, 64, 96)
    ] * 2
    steps = [entry for entry in report["results"] if entry["mode"] == "train"]
    assert [(entry["kind"], entry["form"]) for entry in steps] == [
        ("ours", "training step"),
        ("ours", "training step, channels_last"),
        ("ours", "training step, fused"),
        ("ours", "training step, fused, channels_last"),
        ("reference", "training step"),
        ("ours", "training step, with_cp"),
    ]
    plain, other, fused, _, reference, recomputed = (entry["saved_mb"] for entry in steps)
    assert recomputed < plain < reference and fused < plain and other == plain
    assert not can_plot(dict(results=steps))
    with pytest.raises(ValueError, match="nothing to plot"):
        save_plot(dict(results=steps), "unused.png")


def test_training_keeps_less_for_backward_than_the_reference(monkeypatch):
    """The figures of docs/benchmarks.md that no machine changes, nor the width."""
    monkeypatch.setitem(ARCHS, "6-narrow", ARCHS["6"].scaled(0.125))
    ours, checkpointed = build_ours("6-narrow"), build_ours("6-narrow", with_cp=True)
    reference = build_reference(ours)
    images = torch.randn(1, 3, 96, 96)
    saved = []
    for contender in (reference, ours, checkpointed):
        model = contender.model.train()
        # One image has one value a channel behind the pooling, which batch norm refuses.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.num_features == 1000:
                module.eval()
        saved.append(
            saved_for_backward(
                lambda model=model: TensorModel(model, "logits")(images).sum(), model.parameters()
            )
        )
    assert saved[1] / saved[0] <= 0.9
    assert saved[2] / saved[0] <= 0.12


def test_speed_ups_are_geometric_means_over_archs():
    def entry(kind, arch, form, median):
        setting = dict(mode="forward", dtype="fp32", batch=1, height=8, width=8)
        return dict(setting, kind=kind, arch=arch, form=form, ms=dict(median=median))

    results = [
        entry("reference", "5", "fused", 8.0),
        entry("reference", "9", "fused", 8.0),
        entry("reference", "9", "training", 1.0),
        entry("ours", "5", "compiled", 4.0),
        entry("ours", "9", "compiled", 1.0),
        entry("ours", "13", "compiled", 1.0),
        entry("peer", "9", "compiled", 1.0),
    ]
    (ratio,) = compare_with_reference(results)
    assert ratio["times_as_fast"] == pytest.approx(4.0)
    assert ratio["archs"] == ["5", "9"]


def test_peer_comes_with_its_published_accuracy_and_fused():
    peer = build_peer("resnet18")
    assert peer.published_top1 == pytest.approx(69.9)
    images = torch.randn(1, 3, 64, 64)
    assert not [m for m in peer.fused.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(
        prepare(peer, "fused", images)(), prepare(peer, "training", images)(), rtol=1e-3, atol=1e-4
    )


def test_refusals(tiny):
    with pytest.raises(ValueError, match="unknown peer 'resnet-eleven'; choose from resnet18"):
        build_peer("resnet-eleven")
    with pytest.raises(ValueError, match="unknown modes sleep; choose from forward"):
        run_benchmark(Plan(modes=("sleep",)))
    with pytest.raises(ValueError, match="at least 2 rounds"):
        run_benchmark(Plan(rounds=1))
    with pytest.raises(ValueError, match="14"):
        run_benchmark(Plan(archs=("14",)))
    with pytest.raises(ValueError, match="at least 1"):
        run_benchmark(Plan(batches=(0,)))
    with pytest.raises(ValueError, match="does not pool adaptively"):
        build_reference(build_ours_adaptive())
    ours = build_ours(tiny)
    with pytest.raises(Unmeasurable, match="fp32"):
        prepare(ours, "onnxruntime", torch.zeros(1, 3, 64, 64, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="unknown form 'fast'; choose from training"):
        prepare(ours, "fast", torch.zeros(1, 3, 64, 64))


def build_ours_adaptive():
    class Ours:
        arch = "13-1.5x-ada"
        width_mult = 1.0

    return Ours


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_tool_without_a_gpu_says_so_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "tools/benchmark.py", "--device", "cuda", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: no device cuda")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "sizes", "feature_size"),
    [
        ([], ((224, 224),), (800, 1333)),
        (["--shape", "64", "96", "--shape", "32", "32"], ((64, 96), (32, 32)), (800, 1333)),
        (["--feature-shape", "64", "96"], ((224, 224),), (64, 96)),
        (["--sizes", "64x96", "32", "--feature-size", "8x9"], ((64, 96), (32, 32)), (8, 9)),
    ],
)
def test_sizes_of_the_command_line(arguments, sizes, feature_size, capsys):
    tool = runpy.run_path(str(ROOT / "tools" / "benchmark.py"), run_name="tool")
    plan = tool["make_plan"](tool["build_parser"]().parse_args(arguments))
    assert (plan.sizes, plan.feature_size) == (sizes, feature_size)
    assert ("use --shape and --feature-shape" in capsys.readouterr().err) == (
        "--sizes" in arguments
    )


def test_tool_refuses_to_replace_results_before_it_measures(tmp_path):
    (tmp_path / "benchmark.json").write_text("precious")
    done = subprocess.run(
        [sys.executable, "tools/benchmark.py", "--archs", "5", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert "exists already; pass --overwrite" in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark.json"]


def test_published_accuracies_are_of_known_variants():
    assert set(PUBLISHED_TOP1) == set(ARCHS)
    assert all(resolve_arch(name) for name in PUBLISHED_TOP1)
