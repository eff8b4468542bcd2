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

<<<<<<< HEAD
from mmvanilla.apis.timing import time_interleaved

_NAMED_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf", "numpy")
=======
_PACKAGES = ("torch", "torchvision", "onnxruntime", "openvino", "nncf", "numpy")
>>>>>>> f20449c (Benchmark networks, forms and runtimes by a quarter of the code, on any device)
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
<<<<<<< HEAD


def peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Measure the peak memory of a run, beyond the memory in use before it.

    The figures come from the allocator on a GPU, and from the kernel on a CPU (Linux only).

    Args:
        run: Function to measure; it is called once.
        device: Device that it runs on.

    Returns:
        The number of bytes; None if it cannot be measured.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    _return_free_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the kernel's high-water mark
        resident = _process_bytes("VmRSS")
        run()
        return max(0, _process_bytes("VmHWM") - resident)
    except (OSError, LookupError):
        return None


def _return_free_memory() -> None:
    # Free memory that the allocator keeps would hide the memory that the run takes.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _process_bytes(entry: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(entry)


def peak_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the speed of a large dense layer, in 10⁹ floating-point operations per second.

    The layer is a 1×1 convolution from 2048 to 2048 channels over 2048 pixels (8192 of each on a
    GPU); the fastest of ten runs counts. The speed is for orientation and not an upper bound.

    Args:
        device: Device to run on.
        dtype: Data type of weights and pixels.

    Returns:
        The speed in GFLOP/s.
    """
    channels = 2048 if device.type == "cpu" else 8192
    channels_last: Any = dict(memory_format=torch.channels_last)
    layer = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False))
    layer.to(device, dtype, **channels_last)
    pixels = torch.randn(1, channels, 32, channels // 32, device=device, dtype=dtype)
    pixels = pixels.to(**channels_last)
    with torch.no_grad():
        timing = time_interleaved({"layer": lambda: layer(pixels)}, rounds=10)["layer"]
    return 2e-6 * channels**3 / timing.fastest


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describe the device, threads and versions of a measurement.

    Args:
        device: Device of the measurement.

    Returns:
        A dict for JSON.
    """
    versions = {"python": platform.python_version()}
    for name in _NAMED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    machine: dict[str, Any] = {
        "cpu": _cpu_name(),
        "instructions": _instructions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "versions": versions,
    }
    if hasattr(os, "getloadavg"):
        machine["load_before"] = round(os.getloadavg()[0], 2)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine["gpu"] = properties.name
        machine["gpu_memory_gb"] = round(properties.total_memory / 1e9, 1)
        versions["cuda"] = str(torch.version.cuda)
        versions["cudnn"] = str(torch.backends.cudnn.version())
    return machine


def _instructions() -> list[str]:
    """List the instruction sets for products of many numbers; empty if the system does not tell."""
    entries = _cpu_entries()
    flags = (entries.get("flags") or entries.get("Features") or "").split()
    return [name for flag, name in _INSTRUCTIONS.items() if flag in flags]


def _cpu_name() -> str:
    entries = _cpu_entries()
    if not entries:
        return platform.processor() or platform.machine()
    name = entries.get("model name", platform.machine())
    if "cpu family" in entries:
        name += f" (family {entries['cpu family']}, model {entries.get('model', '?')})"
    return name


def _cpu_entries() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    entries: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            entries[name.strip()] = value.strip()
    return entries
=======
>>>>>>> f20449c (Benchmark networks, forms and runtimes by a quarter of the code, on any device)
