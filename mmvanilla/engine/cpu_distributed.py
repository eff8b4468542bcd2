"""Train in several processes on CPUs, with gloo; mmengine alone needs GPUs for that."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier, is_distributed
from torch import distributed

# The environment variables of each launcher: rank, world size, and rank on the node.
_LAUNCHERS = {
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
}


def prepare(cfg: Config) -> None:
    """Join a gloo process group before the Runner is built, and let its model wrapper fit.

    Without a launcher, or where there is a GPU, nothing is done.

    Raises:
        RuntimeError: The launcher's environment variables are not set.
    """
    launcher = cfg.get("launcher", "none")
    if launcher == "none" or get_device() != "cpu":
        return
    if not is_distributed():
        _join_gloo_group(launcher, cfg.get("env_cfg", {}).get("dist_cfg", {}).get("timeout"))
    wrapper = dict(type="MMDistributedDataParallel", broadcast_buffers=False)
    wrapper["find_unused_parameters"] = cfg.get("find_unused_parameters", False)
    given = cfg.get("model_wrapper_cfg") or {}
    if given.get("type", wrapper["type"]) == wrapper["type"]:
        cfg.model_wrapper_cfg = {**wrapper, **given, "device_ids": None}


def finish() -> None:
    """Leave the process group, if there is one, after all processes are done, or gloo aborts."""
    if is_distributed():
        barrier()
        distributed.destroy_process_group()


def _join_gloo_group(launcher: str, timeout: float | None) -> None:
    missing = ", ".join(name for name in _LAUNCHERS[launcher] if name not in os.environ)
    if missing:
        raise RuntimeError(
            f"--launcher {launcher}: {missing} are not set; start by torchrun, srun or mpirun"
        )
    for name, source in zip(_LAUNCHERS["pytorch"], _LAUNCHERS[launcher], strict=True):
        os.environ[name] = os.environ[source]
    if launcher == "slurm" and "MASTER_ADDR" not in os.environ:
        command = ["scontrol", "show", "hostnames", os.environ.get("SLURM_NODELIST", "")]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        os.environ["MASTER_ADDR"] = listed.split()[0]
    os.environ.setdefault("MASTER_PORT", "29500")
    # torch 2.1 does not accept None.
    limit: dict[str, Any] = {} if timeout is None else {"timeout": timedelta(seconds=timeout)}
    distributed.init_process_group("gloo", **limit)
