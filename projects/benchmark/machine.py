"""Describe the machine of a benchmark, and count what a training step keeps in memory."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_PACKAGES = ("torch", "torchvision", "onnxruntime", "openvino", "nncf", "numpy")
# What decides how fast products run on a CPU, by the names of the kernel's flags.
_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
    "asimd": "NEON",
    "asimddp": "NEON dot product",
    "i8mm": "NEON int8 matrix product",
}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describe the device, threads and versions of a measurement, as a dict for JSON."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    entries = _cpu_entries()
    flags = (entries.get("flags") or entries.get("Features") or "").split()
    machine: dict[str, Any] = {
        "cpu": entries.get("model name") or platform.processor() or platform.machine(),
        "instructions": [name for flag, name in _INSTRUCTIONS.items() if flag in flags],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": versions,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine["gpu"] = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
        versions["cuda"] = str(torch.version.cuda)
        versions["cudnn"] = str(torch.backends.cudnn.version())
    return machine


def _cpu_entries() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def saved_for_backward(forward: Callable[[], Tensor], parameters: Iterable[nn.Parameter]) -> int:
    """Count the bytes of activations that a forward pass keeps for backward.

    Every storage counts once, however many operators save it; parameters do not count.

    Args:
        forward: Function that runs a forward pass and returns the tensor for backward.
        parameters: Parameters of the model, which are not counted.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outcome = forward()
    # The graph exists until here, so no address was used twice.
    assert outcome.requires_grad
    return sum(storages.values())
