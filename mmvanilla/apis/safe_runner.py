"""A Runner that runs no code from checkpoints, writes them atomically, and skips damaged ones."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmvanilla.apis.model import explain_build_error
from mmvanilla.apis.pictures import PicturesInRun
from mmvanilla.checkpoints.reading import find_damage, use_safe_loaders

_LAST = "last_checkpoint"  # the name that mmengine's CheckpointHook uses
_SAVED = re.compile(r"^(?:epoch|iter)_(\d+)\.pth$")


def build_runner(cfg: Config) -> Runner:
    """Build the Runner of a config as mmengine does, with our mixins.

    They are :class:`SafeFiles` and :class:`mmvanilla.apis.pictures.PicturesInRun`.

    Raises:
        ValueError: The config's ``runner_type`` is unknown.
    """
    base: Any = Runner
    name = cfg.get("runner_type")
    if name is not None:
        base = RUNNERS.get(name) if isinstance(name, str) else name
        if base is None:
            raise ValueError(
                f"unknown runner_type {name!r}; correct it, or add its module to the config's "
                "custom_imports"
            )
    safe: Any = type(f"Safe{base.__name__}", (SafeFiles, PicturesInRun, base), {})
    use_safe_loaders()
    return safe.from_cfg(cfg)


class SafeFiles:
    """A mixin for Runners that makes them read and write checkpoints safely."""

    _resumed_from: str | None = None

    def load_or_resume(self) -> None:
        """See mmengine's Runner; resumes from the newest undamaged checkpoint in the work dir."""
        runner: Any = self
        is_automatic = runner._resume and runner._load_from is None and not runner._has_loaded
        if not is_automatic:
            return super().load_or_resume()  # type: ignore[misc]
        newest, damaged = newest_whole_checkpoint(Path(runner.work_dir))
        for reason in damaged:
            runner.logger.warning(f"skipping a damaged checkpoint: {reason}")
        if newest is None and damaged:
            raise RuntimeError(
                f"{runner.work_dir} has no undamaged checkpoint to resume from; delete its "
                "checkpoints to start again, or name a checkpoint with --resume"
            )
        if newest is None:
            runner.logger.warning(
                f"{runner.work_dir} has no checkpoint to resume from: training starts from scratch"
            )
            return None
        runner._load_from = str(newest)
        return super().load_or_resume()  # type: ignore[misc]

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """See mmengine's Runner."""
        self._resumed_from = filename
        try:
            super().resume(filename, *args, **kwargs)  # type: ignore[misc]
        finally:
            self._resumed_from = None

    def build_model(self, model: Any) -> Any:
        """See mmengine's Runner."""
        try:
            return super().build_model(model)  # type: ignore[misc]
        except Exception as error:
            raise explain_build_error(self.cfg, error) from error  # type: ignore[attr-defined]

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """See mmengine's Runner; a checkpoint is checked before any hook gets it."""
        if fn_name == "after_load_checkpoint":
            checkpoint = kwargs["checkpoint"]
            if self._resumed_from is not None:
                _check_resumable(checkpoint, self._resumed_from)
            _tame_meta(checkpoint)
        super().call_hook(fn_name, **kwargs)  # type: ignore[misc]


def newest_whole_checkpoint(work_dir: Path) -> tuple[Path | None, list[str]]:
    """Find the checkpoint to resume from, also if the run was killed while it was writing.

    The file ``last_checkpoint`` names the newest checkpoint, unless the run was killed before that
    file was written: then there is a newer checkpoint with a higher number. If the newest one is
    damaged, the newest undamaged one of the others is chosen.

    Args:
        work_dir: Folder of one training run.

    Returns:
        The checkpoint, None if there is no undamaged one; and one line for each damaged checkpoint
        that was skipped, with its name.
    """
    saved = [path for path in work_dir.glob("*.pth") if _SAVED.match(path.name)]
    saved.sort(key=lambda path: (path.stat().st_mtime, _number(path)), reverse=True)
    candidates = saved
    note = work_dir / _LAST
    named = _read_note(note)
    if named is not None and named.is_file():
        written = note.stat().st_mtime
        is_after = [
            path
            for path in saved
            if path.stat().st_mtime > written and _number(path) > _number(named)
        ]
        candidates = [*is_after, named, *saved]
    damaged: dict[Path, str] = {}
    for path in dict.fromkeys(path.resolve() for path in candidates):
        reason = find_damage(path)
        if reason is None:
            return path, list(damaged.values())
        damaged[path] = reason
    return None, list(damaged.values())


def _number(path: Path) -> int:
    match = _SAVED.match(path.name)
    return int(match[1]) if match else 0


def _read_note(note: Path) -> Path | None:
    try:
        text = note.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not text:
        return None
    # The work dir may have been moved, or the tool may run in another folder now.
    return Path(text) if Path(text).is_file() else note.parent / Path(text).name


def _check_resumable(checkpoint: Any, filename: str) -> None:
    meta = checkpoint.get("meta")
    progress = [meta.get(key) for key in ("epoch", "iter")] if isinstance(meta, Mapping) else [None]
    hub = checkpoint.get("message_hub")
    has_hub = isinstance(hub, Mapping) and {"log_scalars", "runtime_info", "resumed_keys"} <= set(
        hub
    )
    if not has_hub or not all(type(number) is int and number >= 0 for number in progress):
        raise ValueError(
            f"{filename} holds weights, but not the state of a training run; start from its "
            "weights with --cfg-options load_from=FILE, or name a checkpoint that training wrote"
        )
    seed = meta.get("seed")
    if seed is not None and type(seed) is not int:
        raise ValueError(f"{filename} has the seed {seed!r}; expected an integer or none")


def _tame_meta(checkpoint: Any) -> None:
    """Reduce the config in ``meta['config']`` to the one line that mmengine needs.

    On resuming, mmengine executes this text as Python to compare the number of GPUs.
    """
    meta = checkpoint.get("meta") if isinstance(checkpoint, Mapping) else None
    if not isinstance(meta, dict) or "config" not in meta:
        return
    gpu_ids = _read_gpu_ids(meta.pop("config"))
    if gpu_ids is not None:
        meta["config"] = f"gpu_ids = {gpu_ids!r}\n"


def _read_gpu_ids(config: Any) -> list[int] | None:
    """Read ``gpu_ids = [0, 1]`` in a config's text, without running the text."""
    try:
        statements = ast.parse(config).body
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return None
    for statement in statements:
        if not isinstance(statement, ast.Assign):
            continue
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        if names != ["gpu_ids"]:
            continue
        try:
            value = ast.literal_eval(statement.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return None
        if isinstance(value, list | tuple) and all(type(index) is int for index in value):
            return list(value)
    return None
