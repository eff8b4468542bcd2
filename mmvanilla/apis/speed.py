"""Switch channels_last and torch.compile on or off in a config."""

from __future__ import annotations

import os
import shutil
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import HOOKS

from mmvanilla.apis.deploy_config import is_config_of
from mmvanilla.engine.channels_last import ChannelsLastHook

_KEY = "channels_last"
# What torch.compile looks for on Linux and macOS, unless CXX names another one.
_COMPILERS = ("g++", "clang++")


def set_channels_last(cfg: Config, channels_last: bool | None) -> None:
    """Let the model of a config run in the memory format channels_last, or not.

    Args:
        cfg: Config of a training or a test, in which a ``ChannelsLastHook`` is added or removed.
        channels_last: Whether to use the format. None: as the config says.
    """
    if channels_last is None:
        return
    defaults = dict(cfg.get("default_hooks") or {})
    customs = list(cfg.get("custom_hooks") or [])
    named = [key for key, hook in defaults.items() if _is_hook(hook)]
    others = [hook for hook in customs if not _is_hook(hook)]
    if channels_last and not named and len(others) == len(customs):
        cfg.default_hooks = {**defaults, _KEY: dict(type=ChannelsLastHook.__name__)}
    elif not channels_last:
        if named:
            cfg.default_hooks = {key: defaults[key] for key in defaults if key not in named}
        if len(others) < len(customs):
            cfg.custom_hooks = others


def set_compiled(cfg: Config, compiled: bool | None) -> None:
    """Let mmengine compile the model of a config by ``torch.compile``, or not.

    Args:
        cfg: Config whose ``compile`` is set; options that it has already are kept.
        compiled: Whether to compile. None: as the config says.

    Raises:
        RuntimeError: The model is to be compiled for the CPU, and there is no C++ compiler.
    """
    if compiled is False:
        cfg.compile = False
    elif compiled and not cfg.get("compile"):
        cfg.compile = True
    options = cfg.get("compile")
    if not options or get_device() != "cpu":
        return
    backend = "inductor" if options is True else options.get("backend", "inductor")
    own = os.environ.get("CXX")
    if backend == "inductor" and not any(map(shutil.which, [own] if own else _COMPILERS)):
        raise RuntimeError(
            f"torch.compile needs a C++ compiler for the CPU, and there is no {own or 'g++'}; "
            "install one (apt-get install g++), or add --no-compile"
        )


def _is_hook(hook: Any) -> bool:
    return isinstance(hook, ChannelsLastHook) or is_config_of(hook, ChannelsLastHook, HOOKS)
