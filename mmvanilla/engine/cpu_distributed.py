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
        if launcher != "pytorch" or not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
            raise RuntimeError(
                f"--launcher {launcher}: where there is no GPU, torchrun must start the processes, "
                "and the launcher is pytorch"
            )
        limit = cfg.get("env_cfg", {}).get("dist_cfg", {}).get("timeout")
        # torch 2.1 does not accept None.
        options: dict[str, Any] = {} if limit is None else {"timeout": timedelta(seconds=limit)}
        distributed.init_process_group("gloo", **options)
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
