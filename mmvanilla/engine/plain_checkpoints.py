"""Write checkpoints of plain values, which every torch reads without running code, and whole."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS
from torch import Tensor

from mmvanilla.checkpoints.writing import write_whole

_BACKEND = "mmvanilla_whole_files"
_PLAIN = (type(None), bool, int, float, str, bytes)
_LEFT_OUT = object()


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Lets checkpoints hold nothing but tensors, numbers, texts, lists and dicts, in whole files.

    ``torch.load(path, weights_only=True)`` reads them with every torch from 2.1 on. The histories
    of the log become lists, and come back when a run is resumed; values of numpy become numbers.
    Anything else, such as a function that a schedule keeps, is left out, and the log says so once.
    A file appears when it is complete. Our tools add this hook to each training; in
    ``custom_hooks`` it works with the toolboxes' own tools, too.
    """

    priority = "LOWEST"  # it changes what all other hooks have put into a checkpoint

    def __init__(self) -> None:
        self._told: set[str] = set()

    def before_train(self, runner: Any) -> None:
        """Let checkpoints that are written to this machine appear as whole files."""
        register_backend(_BACKEND, _WholeFiles, force=True)
        for hook in _checkpoint_hooks(runner):
            chosen = hook.backend_args or hook.file_client_args or "://" in str(hook.out_dir)
            hook.backend_args = hook.backend_args if chosen else dict(backend=_BACKEND)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Replace each value of the checkpoint by a plain one."""
        left_out: list[str] = []
        checkpoint.update({k: plain_value(value, k, left_out) for k, value in checkpoint.items()})
        news = [name for name in left_out if name not in self._told]
        self._told.update(news)
        if news:
            runner.logger.warning(f"not plain, so left out of checkpoints: {', '.join(news)}")

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Bring the histories back, and drop the text that mmengine would execute on resuming."""
        if not runner._resume:
            return
        checkpoint["meta"].pop("config", None)
        hub = checkpoint["message_hub"]
        for name, history in hub["log_scalars"].items():
            if isinstance(history, dict):
                hub["log_scalars"][name] = HistoryBuffer(history["log"], history["count"])
        # The folder may be a copy: what its run removes later must not be the original's.
        if all(hook.out_dir is None for hook in _checkpoint_hooks(runner)):
            for name, value in hub["runtime_info"].items():
                if name.startswith(("best_ckpt", "last_ckpt")) and isinstance(value, str):
                    hub["runtime_info"][name] = str(Path(runner.work_dir, Path(value).name))


def _checkpoint_hooks(runner: Any) -> list[CheckpointHook]:
    return [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]


class _WholeFiles(LocalBackend):
    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_whole(obj, filepath, overwrite=True)


def plain_value(value: Any, name: str, left_out: list[str]) -> Any:
    """Make plain values of a value; ``left_out`` gets the names of what has none."""
    if type(value) in _PLAIN or isinstance(value, Tensor):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return dict(log=log.tolist(), count=count.tolist())
    if isinstance(value, Mapping):
        pairs = ((key, plain_value(item, f"{name}.{key}", left_out)) for key, item in value.items())
        kept = OrderedDict((key, item) for key, item in pairs if item is not _LEFT_OUT)
        if not isinstance(value, OrderedDict):
            return dict(kept)
        vars(kept).update(vars(value))  # a state dict has its versions there
        return kept
    if isinstance(value, list | tuple | set):
        items = [plain_value(item, f"{name}.{index}", left_out) for index, item in enumerate(value)]
        items = [item for item in items if item is not _LEFT_OUT]
        return tuple(items) if isinstance(value, tuple) else items
    left_out.append(name)
    return _LEFT_OUT
