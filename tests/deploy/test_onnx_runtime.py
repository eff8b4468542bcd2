"""ONNX Runtime on a GPU: it runs there, or says why not."""

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from mmvanilla.deploy.onnx_runtime import open_session
from tests.helpers import ROOT

onnxruntime = pytest.importorskip("onnxruntime")
CUDA = "CUDAExecutionProvider"


@pytest.fixture
def file(tmp_path):
    """A file with one Relu."""
    onnx = pytest.importorskip("onnx")
    value = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"])
        for name in ("input", "output")
    ]
    node = onnx.helper.make_node("Relu", ["input"], ["output"])
    graph = onnx.helper.make_graph([node], "relu", value[:1], value[1:])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "f.onnx"
    )
    return tmp_path / "f.onnx"


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this one has CUDA")
def test_a_build_without_cuda_says_what_to_install(file):
    with pytest.raises(RuntimeError, match="no CUDAExecutionProvider; install onnxruntime-gpu"):
        open_session(file, cuda=True)


@pytest.mark.parametrize("falls_back", [True, False])
def test_running_on_the_cpu_instead_of_the_gpu_is_an_error(file, monkeypatch, falls_back):
    """Where libraries of CUDA are missing, ONNX Runtime takes the CPU and only logs it."""
    asked = []

    def session(path, options, providers):
        asked.extend(providers)
        found = [] if falls_back else [CUDA]
        return types.SimpleNamespace(get_providers=lambda: [*found, "CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    if falls_back:
        with pytest.raises(RuntimeError, match="would run on the CPU; install a version"):
            open_session(file, cuda=True, device_id=1)
    else:
        assert open_session(file, cuda=True, device_id=1).get_providers()[0] == CUDA
    assert asked == [(CUDA, {"device_id": 1})]


def test_images_of_a_gpu_are_bound_and_outputs_stay_there():
    from projects.benchmark.exported import _bound

    calls = []
    binding = types.SimpleNamespace(
        bind_input=lambda *args: calls.append(args),
        bind_output=lambda *args: calls.append(args),
    )
    named = types.SimpleNamespace
    session = named(
        io_binding=lambda: binding,
        get_inputs=lambda: [named(name="input")],
        get_outputs=lambda: [named(name="logits")],
        run_with_iobinding=lambda bound: calls.append(bound),
    )

    class Images:
        is_cuda = True
        shape = torch.Size([1, 3, 8, 8])

        def data_ptr(self):
            return 4096

    assert _bound(session, Images(), 2)() is binding
    assert calls == [
        ("input", "cuda", 2, np.float32, (1, 3, 8, 8), 4096),
        ("logits", "cuda", 2),
        binding,
    ]


@pytest.mark.gpu
def test_exported_net_runs_on_a_gpu(tmp_path):
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDAExecutionProvider")
    from mmvanilla.utils.numerics import relative_difference
    from projects.benchmark.plain_networks import build_plain_ours
    from projects.benchmark.runtimes import prepare

    ours = build_plain_ours("5", width_mult=1 / 32)
    images = torch.randn(2, 3, 64, 64, device="cuda")
    (logits,) = prepare(ours, "onnxruntime", images)().copy_outputs_to_cpu()
    assert relative_difference(prepare(ours, "fused", images)().cpu(), logits) < 2e-2


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
@pytest.mark.parametrize(
    ("folder", "ask"),
    [
        (".", "from mmvanilla.deploy.onnx_runtime import require_onnx as ask"),
        ("mmvanilla/deploy", "import runner; ask = lambda: runner._load_onnx('no file', 'cpu')"),
    ],
    ids=["tools", "runner"],
)
def test_onnx_runtime_reports_nothing_to_its_makers(folder, ask):
    """Its reports come from a thread that begins with its import."""
    code = f"""
import contextlib, os
{ask}
threads = len(os.listdir("/proc/self/task"))
with contextlib.suppress(ValueError):
    ask()
import onnxruntime
print(len(os.listdir("/proc/self/task")) - threads)
"""
    # It reports nothing in a CI, either.
    off = ("ORT_DISABLE_TELEMETRY", "CI")
    env = {name: value for name, value in os.environ.items() if name not in off}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(env, PYTHONPATH=str(ROOT / folder)),
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "0", done.stdout + done.stderr
