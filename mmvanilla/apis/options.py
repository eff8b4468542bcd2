"""Switch what a command line asks for on or off in a config."""

from __future__ import annotations

import os
from typing import Any

from mmengine.config import Config

from mmvanilla.apis.config import leaves, toolbox_of

# What the visualization hooks of the toolboxes call the switch and the folder. MMSegmentation's
# draws into the folder of the visualizer.
_HOOKS = {
    "mmdet": ("draw", "test_out_dir"),
    "mmseg": ("draw", None),
    "mmpretrain": ("enable", "out_dir"),
}


def set_mixed_precision(cfg: Config, amp: bool | None) -> None:
    """Let a config train with automatic mixed precision, without it, or as it says (None).

    Raises:
        ValueError: The config has an optimiser wrapper of another kind.
    """
    wrapper = cfg.optim_wrapper
    kind = str(getattr(wrapper.get("type"), "__name__", wrapper.get("type"))).rpartition(".")[2]
    is_amp = kind in ("AmpOptimWrapper", "BFloat16OptimWrapper")
    if amp and not is_amp:
        if kind not in ("None", "OptimWrapper"):
            raise ValueError(f"--amp would replace the {kind} of {cfg.filename}; leave it out")
        wrapper.type = "AmpOptimWrapper"
        wrapper.setdefault("loss_scale", "dynamic")
    elif amp is False and is_amp:
        wrapper.type = "OptimWrapper"
        for name in ("loss_scale", "dtype", "use_fsdp"):
            wrapper.pop(name, None)


def set_pictures(cfg: Config, show_dir: str) -> None:
    """Let a test draw its predictions into a folder.

    Raises:
        ValueError: The config has no hook of a toolbox that draws.
    """
    hook: Any = (cfg.get("default_hooks") or {}).get("visualization")
    toolbox = toolbox_of(cfg)
    if hook is None or toolbox not in _HOOKS:
        raise ValueError(
            f"{cfg.filename} has no default_hooks.visualization of {', '.join(_HOOKS)}, so nothing "
            "can be drawn; leave --show-dir out"
        )
    switch, folder = _HOOKS[toolbox]
    hook[switch] = True
    # MMDetection joins a relative path to the folder of the run, the others do not.
    path = os.path.abspath(os.path.expanduser(show_dir))
    if folder:
        hook[folder] = path
    else:
        cfg.visualizer = dict(cfg.get("visualizer") or {}, save_dir=path)
    if toolbox == "mmpretrain":
        hook.setdefault("interval", 1)  # as its own tool: every image, not one of 5000


def set_tta(cfg: Config) -> None:
    """Let a test use the test-time augmentation that its config describes.

    Raises:
        ValueError: The config describes none, or draws predictions in MMPretrain, whose hook cannot
            draw augmented images.
    """
    if "tta_model" not in cfg or "tta_pipeline" not in cfg:
        raise ValueError(f"{cfg.filename} has no tta_model and tta_pipeline, which --tta needs")
    if ((cfg.get("default_hooks") or {}).get("visualization") or {}).get("enable"):
        raise ValueError(
            "MMPretrain's hook cannot draw the augmented images of --tta; leave it out"
        )
    for part in leaves(cfg.test_dataloader.dataset):
        part.pipeline = cfg.tta_pipeline
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model
