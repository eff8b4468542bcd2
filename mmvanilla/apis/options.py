"""Switch what a command line asks for on or off in a config."""

from __future__ import annotations

import os
from typing import Any

from mmengine.config import Config

from mmvanilla.apis.config import tested_dataset
from mmvanilla.engine.channels_last import ChannelsLastHook

# The arguments that an OptimWrapper does not take.
_OF_AMP_ALONE = ("loss_scale", "dtype", "use_fsdp")
# What the visualization hooks of the toolboxes call the switch and the folder. MMSegmentation's
# draws into the folder of the visualizer.
_HOOKS = {
    "mmdet": ("draw", "test_out_dir"),
    "mmseg": ("draw", None),
    "mmpretrain": ("enable", "out_dir"),
}


def set_mixed_precision(cfg: Config, amp: bool | None) -> None:
    """Let a config train with automatic mixed precision or without it.

    Args:
        cfg: Config with an ``optim_wrapper``, which may be changed.
        amp: Whether to train with mixed precision, which needs a GPU. None: as the config says.
    """
    wrapper = cfg.optim_wrapper
    if amp and not _is_named(wrapper, "AmpOptimWrapper"):
        wrapper.type = "AmpOptimWrapper"
        wrapper.setdefault("loss_scale", "dynamic")
    elif amp is False and _is_named(wrapper, "AmpOptimWrapper"):
        wrapper.type = "OptimWrapper"
        for name in _OF_AMP_ALONE:
            wrapper.pop(name, None)


def set_channels_last(cfg: Config, channels_last: bool | None) -> None:
    """Let the model of a config run in the memory format channels_last, or not.

    Args:
        cfg: Config of a training or a test, in which a ``ChannelsLastHook`` is added or removed.
        channels_last: Whether to use the format. None: as the config says.
    """
    if channels_last is None:
        return
    name = ChannelsLastHook.__name__
    hooks = {
        key: h for key, h in (cfg.get("default_hooks") or {}).items() if not _is_named(h, name)
    }
    others = [hook for hook in cfg.get("custom_hooks") or () if not _is_named(hook, name)]
    cfg.default_hooks = hooks
    cfg.custom_hooks = [*others, dict(type=name)] if channels_last else others


def set_compiled(cfg: Config, compiled: bool | None) -> None:
    """Let mmengine compile the model of a config by ``torch.compile``, or not.

    Args:
        cfg: Config whose ``compile`` is set; options that it has already are kept.
        compiled: Whether to compile. None: as the config says.
    """
    if compiled is not None:
        cfg.compile = compiled and (cfg.get("compile") or True)


def set_pictures(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Let a test draw its predictions.

    Args:
        cfg: Config with a visualization hook, which is changed.
        show: Whether to show each prediction in a window.
        show_dir: Folder for the pictures. None: none are saved.
        wait_time: Time in seconds for which each window is shown.

    Raises:
        ValueError: The config has no hook of a toolbox that draws.
    """
    hook = cfg.get("default_hooks", {}).get("visualization")
    if hook is None or cfg.default_scope not in _HOOKS:
        raise ValueError(
            f"{cfg.filename} has no default_hooks.visualization of {', '.join(_HOOKS)}, so nothing "
            "can be shown; leave --show and --show-dir out"
        )
    switch, folder = _HOOKS[cfg.default_scope]
    hook.update({switch: True, "show": show, "wait_time": wait_time})
    if show_dir:
        # MMDetection joins a relative path to the folder of the run, the others do not.
        path = os.path.abspath(os.path.expanduser(show_dir))
        if folder:
            hook[folder] = path
        else:
            cfg.visualizer = dict(cfg.get("visualizer") or {}, save_dir=path)
    if cfg.default_scope == "mmpretrain":
        hook.setdefault("interval", 1)  # as its own tool: every image, not one of 5000


def set_tta(cfg: Config) -> None:
    """Let a test use the test-time augmentation that its config describes.

    Raises:
        ValueError: The config describes none, or draws predictions in MMPretrain, whose hook cannot
            draw augmented images.
    """
    if "tta_model" not in cfg or "tta_pipeline" not in cfg:
        raise ValueError(f"{cfg.filename} has no tta_model and tta_pipeline, which --tta needs")
    if cfg.get("default_hooks", {}).get("visualization", {}).get("enable"):
        raise ValueError(
            "MMPretrain's hook cannot draw the augmented images of --tta; leave it out"
        )
    tested_dataset(cfg).pipeline = cfg.tta_pipeline
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model


def _is_named(node: Any, name: str) -> bool:
    """Whether a config is that of a class, which may be written with its scope or as the class."""
    kind = node.get("type") if isinstance(node, dict) else type(node)
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2] == name
