"""Train in several processes on CPUs, with gloo; mmengine alone needs GPUs for that."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier, is_distributed
from torch import distributed


def prepare(cfg: Config) -> None:
    """Join a gloo process group before the Runner is built, and let its model wrapper fit.

    Without a launcher, or where there is a GPU, nothing is done.

    Raises:
        RuntimeError: torchrun has not started this process.
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
    if launcher != "pytorch" or not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
        raise RuntimeError(
            f"--launcher {launcher}: where there is no GPU, torchrun must start the processes, and "
            "the launcher is pytorch"
        )
    # torch 2.1 does not accept None.
    limit: dict[str, Any] = {} if timeout is None else {"timeout": timedelta(seconds=timeout)}
    distributed.init_process_group("gloo", **limit)
