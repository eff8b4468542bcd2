"""What nvidia-smi says of a GPU, and what is left where it says nothing."""

import subprocess
import types

import pytest
import torch

from mmvanilla.benchmark import gpu_state

CUDA = torch.device("cuda", 1)


@pytest.fixture
def smi(monkeypatch):
    """A made-up nvidia-smi: what it was asked, and what it answers."""
    said = types.SimpleNamespace(command=None, answer="", error=None)

    def run(command, **options):
        said.command = command
        if said.error is not None:
            raise said.error
        return types.SimpleNamespace(stdout=said.answer)

    properties = types.SimpleNamespace(
        name="some GPU",
        total_memory=80 * 10**9,
        major=9,
        minor=0,
        multi_processor_count=132,
        L2_cache_size=50 * 10**6,
        uuid="1234-ab",
    )
    monkeypatch.setattr(gpu_state.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(gpu_state.subprocess, "run", run)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return said


def test_gpu_is_asked_for_by_its_own_number(smi):
    """nvidia-smi does not know CUDA_VISIBLE_DEVICES."""
    smi.answer = "580.10, 1980, 2619, 700.00, [N/A]\n"
    found = gpu_state.describe_gpu(CUDA)
    assert smi.command[-2:] == ["-i", "GPU-1234-ab"]
    assert found == dict(
        name="some GPU",
        memory_gb=80.0,
        compute_capability="9.0",
        multiprocessors=132,
        l2_mb=50.0,
        driver="580.10",
        max_sm_mhz=1980.0,
        max_memory_mhz=2619.0,
        power_limit_w=700.0,
        mig=None,
    )
    smi.answer = "1755, 2619, 41, 310.5, 97\n"
    assert gpu_state.read_state(CUDA)["sm_mhz"] == 1755.0


@pytest.mark.parametrize(
    "error", [None, OSError("no"), subprocess.TimeoutExpired("nvidia-smi", 30)]
)
def test_silence_of_nvidia_smi_is_no_error(smi, error):
    smi.error, smi.answer = error, "what is this"
    assert gpu_state.read_state(CUDA) == {}
    assert gpu_state.describe_gpu(CUDA)["name"] == "some GPU"
    assert gpu_state.read_state(torch.device("cpu")) == {}


@pytest.mark.gpu
def test_this_gpu_is_described():
    found = gpu_state.describe_gpu(torch.device("cuda"))
    assert found["name"] == torch.cuda.get_device_name() and found["memory_gb"] > 0
