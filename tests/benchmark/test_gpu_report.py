"""The report on a GPU: what fails is named, what was measured is kept, and the page tells both."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch

from mmvanilla.benchmark import gpu_cells, gpu_processes, gpu_report
from mmvanilla.benchmark.gpu_cells import BrokenDevice, GroupRun, explain, numeric_settings
from mmvanilla.benchmark.gpu_networks import _DETECTORS, Networks
from mmvanilla.benchmark.gpu_page import MARK, render
from mmvanilla.benchmark.gpu_plan import PRECISIONS, QUESTIONS, full_plan, small_plan
from mmvanilla.benchmark.gpu_processes import read_junit
from mmvanilla.benchmark.gpu_report import Settings, run_report
from mmvanilla.benchmark.graphs import Unmeasurable
from mmvanilla.benchmark.networks import PEERS, PUBLISHED_LATENCY, PUBLISHED_TOP1
from mmvanilla.benchmark.runtimes import RUNTIMES
from mmvanilla.models.archs import ARCHS
from tests.benchmark.fake_gpu_worker import MACHINE
from tests.helpers import ROOT

TRIAL = Settings(device="cpu", small=True, tests=False)
CELLS = list(small_plan().cells())


def ms(median):
    return dict(median=median, low=median, high=median, fastest=median, slowest=median, rounds=9)


def measured(median=2.0, **more):
    return dict(ms=ms(median), device_ms=ms(median / 2), **more)


@pytest.fixture
def report(monkeypatch, tmp_path):
    """Run a report with a stand-in for the process that measures."""
    monkeypatch.setattr(gpu_processes, "_WORKER", "tests.benchmark.fake_gpu_worker")

    def run(actions, settings=TRIAL, **environment):
        monkeypatch.setenv("FAKE_GPU_CELLS", json.dumps(actions))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return run_report(settings, tmp_path / "results.json", tmp_path / "page.md", "the command")

    return run


def test_plan_measures_what_can_be_measured_and_everything_that_was_asked():
    for plan in (full_plan(), small_plan()):
        cells = list(plan.cells())
        assert len(set(cells)) == len(cells)
        for group in plan.groups:
            assert group.question in QUESTIONS and group.precision in PRECISIONS
            for _, network, form in group.cells():
                known = (*ARCHS, *PEERS, *_DETECTORS)
                assert network.removeprefix("reference-").removesuffix(" with_cp") in known
                forms = ("NCHW", "channels_last") if group.question == "training" else RUNTIMES
                assert form in forms
    cells = set(full_plan().cells())
    for precision in ("fp32", "tf32", "fp16", "bf16"):
        for network in ("13", "reference-13", *PEERS):
            for form in ("fused", "channels_last", "cuda_graph", "cuda_graph_nchw"):
                assert f"one/{precision}/1x224x224/{network}/{form}" in cells
                assert f"many/{precision}/64x224x224/{network}/{form}" in cells
    assert "compiled/fp16/1x224x224/13/max_autotune" in cells
    assert "compiled/fp16/64x224x224/13/max_autotune" in cells
    assert "training/amp-bf16/64x224x224/13 with_cp/channels_last" in cells
    assert "training/fp32/64x224x224/reference-13/NCHW" in cells
    assert "features/fp16/1x800x1333/13/cuda_graph" in cells
    assert {group.question for group in full_plan().groups} == set(QUESTIONS)


def test_published_latencies_are_of_known_networks():
    assert set(PUBLISHED_LATENCY) == {*PUBLISHED_TOP1, "resnet50", "swin-t"}
    assert PUBLISHED_LATENCY["9"] == 2.91 and PUBLISHED_LATENCY["13"] == 4.26


def test_process_that_dies_hangs_or_breaks_the_device_costs_one_cell(report, tmp_path):
    actions = dict.fromkeys(CELLS, measured())
    actions.update({CELLS[1]: "kill", CELLS[3]: "break", CELLS[5]: "hang", CELLS[7]: "exit"})
    results = report(actions, dataclasses.replace(TRIAL, patience=3))
    reasons = {
        name: entry["not_measured"]
        for name, entry in results["cells"].items()
        if "not_measured" in entry
    }
    assert reasons == {
        CELLS[1]: "the process was ended by SIGKILL",
        CELLS[3]: "RuntimeError: illegal memory access",
        CELLS[5]: "it did not end within 3 s",
        CELLS[7]: "the process ended with status 9",
    }
    assert set(results["cells"]) == set(CELLS)
    page = (tmp_path / "page.md").read_text()
    for name, reason in reasons.items():
        assert f"- {reason}: `{name}`" in page
    assert "a compiler says something" in (tmp_path / "results.log").read_text()
    assert json.loads((tmp_path / "results.json").read_text()) == results


def test_stopped_report_goes_on_where_it_was(report, tmp_path):
    actions = dict.fromkeys(CELLS, measured(1.0))
    stopped = dict(actions, **{CELLS[4]: "stop"})
    results = report(stopped)
    assert list(results["cells"]) == CELLS[:4]
    page = (tmp_path / "page.md").read_text()
    assert "the time was up before its turn" in page and f"`{CELLS[4]}`" in page
    results = report(dict.fromkeys(CELLS, measured(5.0)))
    medians = [results["cells"][name]["ms"]["median"] for name in CELLS]
    assert medians == [1.0] * 4 + [5.0] * (len(CELLS) - 4)
    assert len(results["runs"]) == 2
    assert "Every cell of the plan was measured." in (tmp_path / "page.md").read_text()


def test_failed_cells_are_measured_again_only_if_asked(report):
    report(dict.fromkeys(CELLS, measured()) | {CELLS[0]: "break"})
    again = dict.fromkeys(CELLS, measured(7.0))
    assert "not_measured" in report(again)["cells"][CELLS[0]]
    cells = report(again, dataclasses.replace(TRIAL, retry=True))["cells"]
    assert [cells[name]["ms"]["median"] for name in CELLS[:2]] == [7.0, 2.0]


def test_time_that_is_up_ends_a_cell_without_calling_it_failed(report, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_processes, "_GRACE", 0.0)
    actions = {CELLS[0]: measured(), CELLS[1]: "hang"}
    started = time.monotonic()
    results = report(actions, dataclasses.replace(TRIAL, minutes=0.1))
    assert time.monotonic() - started < 60
    assert list(results["cells"]) == [CELLS[0]]
    assert "the time was up" in (tmp_path / "page.md").read_text()


def test_page_can_be_written_again_without_measuring(report, tmp_path):
    report(dict.fromkeys(CELLS, measured()))
    (tmp_path / "page.md").unlink()
    report({}, dataclasses.replace(TRIAL, minutes=0), FAKE_GPU_STARTS="no")
    assert (tmp_path / "page.md").read_text().startswith(MARK)


def test_process_that_cannot_start_is_an_error_that_names_the_log(report, tmp_path):
    with pytest.raises(RuntimeError, match="ends before it measures anything; read the end of"):
        report({}, FAKE_GPU_STARTS="no")
    assert not (tmp_path / "page.md").exists()


def test_results_of_another_machine_plan_or_tool_are_refused(report, tmp_path):
    report({CELLS[0]: measured(), CELLS[1]: "stop"})
    for change in (
        dict(gpu="another GPU"),
        dict(versions=dict(torch="8.8", mmvanilla="0.0")),
    ):
        with pytest.raises(ValueError, match="are of another .* --fresh"):
            report(dict.fromkeys(CELLS, measured()), FAKE_GPU_MACHINE=json.dumps(change))
    with pytest.raises(ValueError, match="holds results with device='cpu'"):
        gpu_report.load_results(tmp_path / "results.json", Settings(small=True))
    for text in ("{}", "[1", "[]", '{"format": 1}'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match="does not hold results of this tool"):
            report({})


def test_page_that_somebody_wrote_is_not_replaced(report, tmp_path):
    (tmp_path / "page.md").write_text("# My notes")
    with pytest.raises(ValueError, match="was not written by this tool"):
        report(dict.fromkeys(CELLS, measured()))
    assert (tmp_path / "page.md").read_text() == "# My notes"
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(device="cpu"), "add --small for a trial"),
        (Settings(device="gpu5"), "unknown device 'gpu5'"),
        (Settings(minutes=-1.0), "minutes must be at least 0"),
        (Settings(minutes=float("nan")), "minutes must be at least 0"),
        (dataclasses.replace(TRIAL, patience=0.0), "patience more than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        settings.check()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_missing_gpu_is_named_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "tools/gpu_report.py", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: no device cuda: torch")
    assert not (tmp_path / "out").exists() and not (ROOT / "docs/benchmarks_gpu.md").exists()


def group_run(found, begun=None, **changes):
    plan = small_plan()
    group = dataclasses.replace(plan.groups[0], seconds=0.1, **changes)
    run = GroupRun(
        plan,
        group,
        torch.device("cpu"),
        Networks(),
        (begun if begun is not None else []).append,
        lambda name, entry: found.__setitem__(name.split("/", 3)[3], entry),
    )
    return run, list(group.cells())


def test_memory_that_does_not_suffice_leaves_the_other_cells(monkeypatch):
    original = gpu_cells.prepare

    def prepare(contender, form, images, features=False):
        if form == "channels_last":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
        if form == "cuda_graph":
            raise Unmeasurable("CUDA graphs need a CUDA device")
        if form == "compiled":
            raise KeyError("strange")
        return original(contender, form, images, features)

    monkeypatch.setattr(gpu_cells, "prepare", prepare)
    found, begun = {}, []
    forms = ("fused", "channels_last", "cuda_graph", "compiled")
    run, cells = group_run(found, begun, networks=("5",), forms=forms, precision="fp32")
    run.measure(cells)
    assert found["5/channels_last"]["not_measured"].startswith("out of memory: CUDA out of memory.")
    assert found["5/cuda_graph"]["not_measured"] == "CUDA graphs need a CUDA device"
    assert found["5/compiled"]["not_measured"] == "KeyError: 'strange'"
    entry = found["5/fused"]
    assert entry["ms"]["rounds"] == 3 and entry["difference"] == 0.0
    assert entry["label"] == "VanillaNet-5" and entry["gmacs"] > 0
    assert begun[0] == cells[0][0]


def test_run_that_fails_while_it_is_timed_leaves_the_others(monkeypatch):
    original = gpu_cells.prepare

    def prepare(contender, form, images, features=False):
        run = original(contender, form, images, features)
        calls = iter(range(100))

        def fragile():
            if next(calls) == 5:  # after preparing and warming up
                raise RuntimeError("CUDA error: launch failed")
            return run()

        return fragile if form == "channels_last" else run

    monkeypatch.setattr(gpu_cells, "prepare", prepare)
    found = {}
    run, cells = group_run(found, networks=("5",), forms=("fused", "channels_last"))
    run.measure(cells)
    assert found["5/channels_last"]["not_measured"] == "RuntimeError: CUDA error: launch failed"
    assert "ms" in found["5/fused"] and "ms" not in found["5/channels_last"]


def test_broken_device_is_reported_after_the_cell_that_broke_it(monkeypatch):
    def prepare(*args):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(gpu_cells, "prepare", prepare)
    monkeypatch.setattr(gpu_cells, "_is_broken", lambda device: True)
    found = {}
    run, cells = group_run(found, networks=("5",), forms=("fused", "channels_last"))
    with pytest.raises(BrokenDevice):
        run.measure(cells)
    assert list(found) == ["5/fused"]


def test_tf32_is_off_in_fp32_only_and_settings_come_back():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    for precision, allowed in (("fp32", False), ("tf32", True), ("amp-fp16", True)):
        with pytest.raises(KeyError), numeric_settings(precision):
            assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == (
                allowed,
                allowed,
                True,
            )
            raise KeyError
        assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == before


def test_reasons_are_one_line():
    assert explain(RuntimeError()) == "RuntimeError: no message"
    assert "\n" not in explain(ValueError("a\nb")) and len(explain(ValueError("x" * 999))) < 300


def test_page_has_the_tables_the_machine_and_the_doubts():
    def cell(name):
        question, precision, _, network, _ = name.split("/")
        entry = measured(4.0 if network.startswith("reference") else 2.0, label=network)
        if question == "training":
            return dict(entry, saved_mb=10.4, peak_mb=20.6, finite=False)
        if question == "detector":
            return entry
        difference = {"bf16": 0.01, "tf32": 0.5}.get(precision, float("nan"))
        state = dict(before=dict(sm_mhz=345.0), after=dict(sm_mhz=1980.0, memory_mhz=2619.0))
        return dict(entry, gmacs=1.0, difference=difference, state=state)

    results = dict(
        format=1,
        small=False,
        device="cuda",
        machine=MACHINE,
        runs=[dict(command="python tools/gpu_report.py", date="2030-01-02 03:04")],
        cells={name: cell(name) for name in CELLS},
        tests=dict(
            passed=7, failed=1, skipped=1, failures={"t::x": "a | b"}, skips={"t::y": "no ops"}
        ),
    )
    page = render(results, CELLS)
    assert "    python tools/gpu_report.py        # 2030-01-02 03:04" in page
    assert "- GPU: some GPU, memory gb 80.0, driver 570.1" in page and "mig" not in page
    assert "SM 345 to 1980 MHz, memory 2619 to 2619 MHz" in page
    assert "TFLOP/s: 50 in fp32" in page and "A trial" not in page
    assert "7 passed, 1 failed, 1 skipped" in page and "- failure: `t::x`: a / b" in page
    assert "| 5 | 72.49 | 1.61 | 2 (2–2) | 1 | 2 (2–2) |" in page  # published beside measured
    forward = "| 5 | bf16 | 1 | 2 (2–2) | 2 (2–2) | 2 (2–2) | 2 (2–2) |  | 1 | 500 | 1 | 2.00 |"
    assert forward in page
    assert "| 5 | amp-bf16 | 2 | 2 (2–2) | 2 (2–2) | 1000 | 10 | 21 |" in page
    doubts = page.partition("Do not trust these")[2]
    assert "`one/bf16" not in doubts and "`many/fp32/2x64x64/5/fused`: nan" in doubts
    assert "`published/tf32/1x64x64/5/fused`: 0.5" in doubts
    assert "`training/amp-bf16/2x64x64/5/NCHW`: a gradient is not finite" in doubts
    assert "Every cell of the plan was measured." in page and "TensorRT" in page


def test_page_of_nothing_says_so():
    page = render(dict(runs=[], cells={}, small=True), CELLS)
    assert "Nothing was measured yet." in page and "not run" in page


def test_outcomes_of_tests_are_counted(tmp_path):
    path = tmp_path / "junit.xml"
    path.write_text(
        '<testsuites><testsuite><testcase classname="t" name="a"/>'
        '<testcase classname="t" name="b"><failure message="it &lt;broke&gt;">trace</failure>'
        '</testcase><testcase classname="t" name="c"><skipped message="no GPU"/></testcase>'
        '<testcase classname="t" name="d"><error>gone</error></testcase></testsuite></testsuites>'
    )
    assert read_junit(path) == dict(
        passed=1,
        failed=2,
        skipped=1,
        failures={"t::b": "it <broke>", "t::d": "gone"},
        skips={"t::c": "no GPU"},
    )


@pytest.mark.exhaustive
def test_tool_measures_everything_on_a_cpu_and_then_has_nothing_left(tmp_path):
    command = [sys.executable, "tools/gpu_report.py", "--device", "cpu", "--small", "--no-tests"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["cells"]) and set(results["cells"]) == set(CELLS)
    allowed = {"CUDA graphs need a CUDA device", "mmdet is not installed"}
    for name, entry in results["cells"].items():
        assert "ms" in entry or entry["not_measured"] in allowed, (name, entry)
    training = results["cells"]["training/amp-bf16/2x64x64/5/NCHW"]
    assert training["finite"] and training["saved_mb"] > 0
    with_cp = results["cells"]["training/amp-bf16/2x64x64/5 with_cp/NCHW"]
    assert with_cp["saved_mb"] < training["saved_mb"]
    page = (tmp_path / "benchmarks_gpu.md").read_text()
    assert "no figure here is one of a GPU" in page and "Do not trust" not in page
    # Again, without the start of another Python: no cell is left.
    again = run_report(TRIAL, tmp_path / "results.json", tmp_path / "page.md", "the command")
    assert again["cells"] == results["cells"]


def test_make_runs_the_tool_with_what_is_installed():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    command = ["make", "--no-print-directory", "-n", "gpu-report"]
    command += ["VENV=nowhere", "PYTHON=python9", "ARGS=--minutes 5"]
    # Whoever runs these tests by make may have given it arguments; this one would inherit them.
    alone = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, env=alone)
    assert done.stdout.strip().endswith("python9 tools/gpu_report.py --minutes 5")
    assert f'PYTHONPATH="{ROOT}$' in done.stdout and "install" not in done.stdout
