"""Train in several processes on CPUs, with gloo; mmengine alone needs GPUs for that.

mmengine's launcher selects a CUDA device without checking that there is one, its model wrapper
passes a device to PyTorch, and PyTorch's SyncBN refuses CPU tensors. :func:`prepare` solves all
three problems, and changes nothing on a machine with a GPU.
"""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier, get_world_size, is_distributed
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from mmengine.utils.dl_utils import mmcv_full_available
from torch import Tensor, nn
from torch import distributed as torch_distributed
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

# The environment variables of each launcher: rank, world size, and rank on the node.
_LAUNCHERS = {
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
_DEFAULT_PORT = "29500"


def prepare(cfg: Config) -> None:
    """Prepare a config with a launcher for CPUs; call this before the Runner is built.

    Without a GPU the process joins a gloo process group, which mmengine then uses, and the model
    will be wrapped by :class:`CPUDistributedDataParallel`. With a GPU, or without a launcher,
    nothing is done (in a single process mmengine itself reverts SyncBN, with a log line).

    Args:
        cfg: Config whose ``launcher`` is read; its ``model_wrapper_cfg`` may be set.

    Raises:
        RuntimeError: The environment variables of the launcher are not set.
        ValueError: The launcher is unknown.
    """
    launcher = cfg.get("launcher", "none")
    if launcher == "none" or get_device() != "cpu":
        return
    if not is_distributed():
        _join_gloo_group(launcher, cfg.get("env_cfg", {}).get("dist_cfg", {}).get("timeout"))
    # DDPStrategy (of mmengine's FlexibleRunner) holds the config of the wrapper itself; other
    # strategies have wrappers of their own.
    strategy = cfg.get("strategy")
    if strategy is None:
        holder, key = cfg, "model_wrapper_cfg"
    elif strategy.get("type") == "DDPStrategy":
        holder, key = strategy, "model_wrapper"
    else:
        return
    wrapper = dict(holder.get(key) or {})
    if wrapper.get("type", "MMDistributedDataParallel") == "MMDistributedDataParallel":
        wrapper["type"] = CPUDistributedDataParallel.__name__
        wrapper.setdefault("broadcast_buffers", False)
        if "find_unused_parameters" in cfg:
            wrapper.setdefault("find_unused_parameters", cfg.find_unused_parameters)
        holder[key] = wrapper


def finish() -> None:
    """Leave the process group, if there is one, after all processes are done.

    Otherwise the first process that exits would close the group while others use it, and gloo would
    abort.
    """
    if is_distributed():
        barrier()
        torch_distributed.destroy_process_group()


def _join_gloo_group(launcher: str, timeout: float | None) -> None:
    if launcher not in _LAUNCHERS:
        raise ValueError(f"launcher must be one of {', '.join(_LAUNCHERS)}, found {launcher!r}")
    missing = [name for name in _LAUNCHERS[launcher] if name not in os.environ]
    if missing:
        raise RuntimeError(
            f"launcher {launcher!r} sets {', '.join(missing)}, which this process does not have; "
            "start it with torchrun, srun or mpirun"
        )
    for name, source in zip(_LAUNCHERS["pytorch"], _LAUNCHERS[launcher], strict=True):
        os.environ[name] = os.environ[source]
    if "MASTER_ADDR" not in os.environ:
        if launcher != "slurm":
            raise RuntimeError("MASTER_ADDR is not set; set it to the address of the first machine")
        os.environ["MASTER_ADDR"] = _first_slurm_host()
    os.environ.setdefault("MASTER_PORT", _DEFAULT_PORT)
    # Leave the argument out instead of passing None, which torch 2.1 does not accept.
    limit: dict[str, Any] = {} if timeout is None else {"timeout": timedelta(seconds=timeout)}
    torch_distributed.init_process_group("gloo", **limit)


def _first_slurm_host() -> str:
    command = ["scontrol", "show", "hostnames", os.environ.get("SLURM_NODELIST", "")]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    return listed.stdout.split()[0]


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's DDP wrapper, for a model on the CPU.

    SyncBN layers, which work only on GPUs in PyTorch, become :class:`CPUSyncBatchNorm`, or plain
    batch norm in a single process.

    Args:
        module: The model to wrap.
        device_ids: Ignored for a model on the CPU, where mmengine passes the local rank.
        kwargs: More arguments of ``MMDistributedDataParallel``.
    """

    def __init__(self, module: nn.Module, device_ids: Any = None, **kwargs: Any) -> None:
        if all(param.device.type == "cpu" for param in module.parameters()):
            module, device_ids = adapt_sync_batchnorm(module), None
        super().__init__(module=module, device_ids=device_ids, **kwargs)


def adapt_sync_batchnorm(model: nn.Module) -> nn.Module:
    """Replace the SyncBN layers of a model by layers that run on CPUs, with a log line.

    Args:
        model: Model that is changed in place; its parameters and buffers stay the same objects.

    Returns:
        The model, or its replacement if it is itself a SyncBN layer.
    """
    kinds: tuple[type[nn.Module], ...] = (nn.SyncBatchNorm,)
    if mmcv_full_available():
        from mmcv.ops import SyncBatchNorm

        kinds += (SyncBatchNorm,)
    count = sum(isinstance(module, kinds) for module in model.modules())
    if not count:
        return model
    if get_world_size() == 1:
        print_log(f"single CPU process: {count} SyncBN layers reverted to BN", "current")
        return revert_sync_batchnorm(model)
    print_log(f"CPU: {count} SyncBN layers synchronise their statistics through gloo", "current")
    return _replace(model, kinds, {})


def _replace(
    module: nn.Module, kinds: tuple[type[nn.Module], ...], done: dict[nn.Module, nn.Module]
) -> nn.Module:
    if module not in done:
        done[module] = module
        if isinstance(module, kinds):
            done[module] = CPUSyncBatchNorm.like(module)
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = _replace(child, kinds, done)
    return done[module]


class CPUSyncBatchNorm(_BatchNorm):
    """Batch norm over the images of all processes, on CPUs; in eval mode plain batch norm."""

    @classmethod
    def like(cls, norm: Any) -> CPUSyncBatchNorm:
        """Make a layer from another batch norm, whose parameters and buffers it shares."""
        new = cls(
            norm.num_features,
            eps=norm.eps,
            momentum=norm.momentum,
            affine=norm.affine,
            track_running_stats=norm.track_running_stats,
        )
        for name, param in norm._parameters.items():
            new.register_parameter(name, param)
        for name, buffer in norm._buffers.items():
            new.register_buffer(name, buffer)
        return new.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C, ...), found a tensor of {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...); every process must call this equally often."""
        if not self.training or get_world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        dims = [0, *range(2, input.dim())]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        full = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        count = all_reduce(full.new_tensor(input.numel() / input.shape[1]))
        mean = all_reduce(full.sum(dims)) / count
        centred = full - mean.reshape(shape)
        var = all_reduce(centred.square().sum(dims)) / count
        if self.track_running_stats:
            self._track(mean.detach(), var.detach() * count / (count - 1))
        out = centred * torch.rsqrt(var + self.eps).reshape(shape)
        if self.affine:
            out = out * self.weight.reshape(shape) + self.bias.reshape(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / float(self.num_batches_tracked)
        assert self.running_mean is not None and self.running_var is not None
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(var.to(self.running_var.dtype), momentum)
