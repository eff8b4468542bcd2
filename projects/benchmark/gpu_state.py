"""Read a GPU's driver, clocks, temperature and limits with nvidia-smi."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import torch

# Names of nvidia-smi, and ours.
_CONSTANT = {
    "driver_version": "driver",
    "clocks.max.sm": "max_sm_mhz",
    "clocks.max.memory": "max_memory_mhz",
    "power.limit": "power_limit_w",
    "mig.mode.current": "mig",
}
_CHANGING = {
    "clocks.sm": "sm_mhz",
    "clocks.memory": "memory_mhz",
    "temperature.gpu": "temperature_c",
    "power.draw": "power_w",
    "utilization.gpu": "busy_percent",
}
_TIMEOUT = 30  # seconds


def describe_gpu(device: torch.device) -> dict[str, Any]:
    """Describe a GPU by what torch and nvidia-smi say of it; nothing is changed.

    Args:
        device: A CUDA device.

    Returns:
        A dict for JSON. Without nvidia-smi it has only what torch says.
    """
    properties: Any = torch.cuda.get_device_properties(device)
    l2 = getattr(properties, "L2_cache_size", None)
    return {
        "name": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "l2_mb": None if l2 is None else round(l2 / 1e6, 1),
        **_query(device, _CONSTANT),
    }


def read_state(device: torch.device) -> dict[str, Any]:
    """Read the clocks, temperature, power and load of a GPU at this moment.

    Args:
        device: Any device.

    Returns:
        A dict for JSON; empty if it is no GPU, or nvidia-smi cannot be run.
    """
    return _query(device, _CHANGING) if device.type == "cuda" else {}


def _query(device: torch.device, names: dict[str, str]) -> dict[str, Any]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [*command, "-i", _identify(device)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in done.stdout.strip().split(",")]
    if len(values) != len(names):
        return {}
    found: dict[str, Any] = dict(zip(names.values(), map(_number_or_text, values), strict=True))
    if "driver" in found:  # a version is no number: 580.10 is not 580.1
        found["driver"] = values[list(names).index("driver_version")]
    return found


def _identify(device: torch.device) -> str:
    # nvidia-smi ignores CUDA_VISIBLE_DEVICES, so the number of a device may be another one there.
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return str(device.index or 0) if uuid is None else f"GPU-{str(uuid).removeprefix('GPU-')}"


def _number_or_text(value: str) -> float | str | None:
    if value.startswith("[") or not value:  # as "[N/A]"
        return None
    try:
        return float(value)
    except ValueError:
        return value
