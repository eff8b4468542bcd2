"""Switch mixed precision on or off in a config, and refuse it where it cannot run."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.device import (
    is_cuda_available,
    is_mlu_available,
    is_musa_available,
    is_npu_available,
)
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from mmvanilla.apis.deploy_config import is_config_of

# The arguments that an OptimWrapper does not take.
_OF_AMP_ALONE = ("loss_scale", "dtype", "use_fsdp")


def set_mixed_precision(cfg: Config, amp: bool | None) -> None:
    """Let a config train with automatic mixed precision or without it.

    There is none on CPUs: mmengine's ``AmpOptimWrapper`` refuses them, and ``torch.autocast`` in
    bfloat16 made a training step many times slower on a CPU without instructions for it, where
    mmcv's operators do not take that type either.

    Args:
        cfg: Config with an ``optim_wrapper``, which may be changed.
        amp: Whether to train with mixed precision. None: as the config says.

    Raises:
        ValueError: Mixed precision is asked for, by ``amp`` or by the config, and there is no GPU.
    """
    wrapper = cfg.optim_wrapper
    is_amp = is_config_of(wrapper, AmpOptimWrapper, OPTIM_WRAPPERS)
    if amp and not is_amp:
        wrapper.type = "AmpOptimWrapper"
        wrapper.setdefault("loss_scale", "dynamic")
        if not _has_device():
            raise ValueError(
                "--amp needs a GPU, and there is none: mmengine has no mixed precision for CPUs; "
                "leave --amp out"
            )
    if not is_amp:
        return
    if amp is False:
        wrapper.type = "OptimWrapper"
        for name in _OF_AMP_ALONE:
            wrapper.pop(name, None)
    elif not _has_device():
        raise ValueError(
            f"{cfg.filename} trains with mixed precision (AmpOptimWrapper), which needs a GPU, and "
            "there is none; add --no-amp to train it in float32"
        )


def _has_device() -> bool:
    # The devices that AmpOptimWrapper knows.
    return is_cuda_available() or is_npu_available() or is_mlu_available() or is_musa_available()
