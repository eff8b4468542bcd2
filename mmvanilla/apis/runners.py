"""Build a Runner from a config file and the options of a command line, for all toolboxes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import METRICS, RUNNERS
from mmengine.runner import Runner

from mmvanilla.apis.config import load_config, toolbox_of
from mmvanilla.apis.options import set_mixed_precision, set_pictures, set_tta
from mmvanilla.apis.resuming import ResumeCheckHook, last_checkpoint
from mmvanilla.checkpoints.reading import use_safe_loaders
from mmvanilla.engine import cpu_distributed
from mmvanilla.engine.plain_checkpoints import PlainCheckpointHook

_REASON_SHOWN = 400  # characters: the keys of a large model would fill pages


def build_train_runner(
    config: str,
    work_dir: str | None = None,
    amp: bool | None = None,
    auto_scale_lr: bool = False,
    resume: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = "none",
) -> Runner:
    """Build the Runner that ``mmvanilla train`` trains with.

    Args:
        config: Path or name of the config.
        work_dir: Folder for logs and checkpoints. None: the config's, or ``work_dirs/<its name>``.
        amp: Whether to train with automatic mixed precision. None: as the config says.
        auto_scale_lr: Whether to scale the learning rate from the config's base batch size to the
            actual one, with the batches that a step accumulates.
        resume: Checkpoint to resume from, or ``'auto'`` for the last one in ``work_dir``.
        cfg_options: Values by dotted key, which override entries of the config.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        FileNotFoundError: The config does not exist.
        RuntimeError: Another training runs in this folder.
        ValueError: The config is not for training, or has no base batch size to scale from.
    """
    needed = ("train_dataloader", "train_cfg", "optim_wrapper")
    cfg = _read(config, cfg_options, work_dir, launcher, *needed)
    set_mixed_precision(cfg, amp)
    if auto_scale_lr:
        if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
            raise ValueError(
                f"{config} has no base to scale from; add auto_scale_lr=dict(base_batch_size=...)"
            )
        cfg.auto_scale_lr.enable = True
    folder = Path(cfg.work_dir)
    has_run = (folder / "last_checkpoint").is_file() or any(folder.glob("[ei]*_[0-9]*.pth"))
    if resume is not None and (resume != "auto" or has_run):  # the first start has its load_from
        cfg.resume = True
        cfg.load_from = None if resume == "auto" else resume
    runner = _build_runner(cfg, _Training)
    if not any(isinstance(hook, PlainCheckpointHook) for hook in runner.hooks):
        runner.register_hook(PlainCheckpointHook())
    runner.register_hook(ResumeCheckHook())
    return runner


def build_test_runner(
    config: str,
    checkpoint: str | None,
    work_dir: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = "none",
) -> Runner:
    """Build the Runner that ``mmvanilla test`` tests with.

    ``checkpoint`` is the path or address of weights that must fit the config's model; None: it has
    its weights already. ``out`` is a ``.pkl`` file for the raw predictions, ``show_dir`` a folder
    for pictures of them, and ``tta`` switches test-time augmentation on, with the config's
    ``tta_model`` and ``tta_pipeline``. The others are those of :func:`build_train_runner`.

    Raises:
        FileNotFoundError: The config or the checkpoint does not exist.
        ValueError: An option does not fit this config.
    """
    if checkpoint and "://" not in checkpoint and not Path(checkpoint).is_file():
        raise FileNotFoundError(f"no checkpoint at {checkpoint}; check the path")
    if out is not None and not out.endswith((".pkl", ".pickle")):
        raise ValueError(f"--out is {out}; give a name that ends in .pkl")
    needed = ("test_dataloader", "test_evaluator")
    cfg = _read(config, cfg_options, work_dir, launcher, *needed)
    cfg.load_from, cfg.resume = checkpoint, False
    if show_dir:
        set_pictures(cfg, show_dir)
    if tta:
        set_tta(cfg)
    runner = _build_runner(cfg, _Testing)
    if out is not None:
        dump = "mmdet.DumpDetResults" if toolbox_of(cfg) == "mmdet" else "DumpResults"
        metric: Any = METRICS.build(dict(type=dump, out_file_path=out))
        runner.test_evaluator.metrics.append(metric)
    return runner


def _read(
    config: str,
    options: Mapping[str, Any] | None,
    work_dir: str | None,
    launcher: str,
    *needed: str,
) -> Config:
    cfg = load_config(config, options)
    missing = [name for name in needed if cfg.get(name) is None]
    if missing:
        raise ValueError(f"{cfg.filename} has no {', '.join(missing)}; take another config")
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get("work_dir") or f"work_dirs/{Path(cfg.filename).stem}"
    return cfg


def _build_runner(cfg: Config, mixin: type) -> Runner:
    kind = cfg.get("runner_type") or Runner
    base: Any = RUNNERS.get(kind) if isinstance(kind, str) else kind
    if base is None:
        raise ValueError(f"{cfg.filename}: unknown runner_type {cfg.runner_type!r}")
    use_safe_loaders()
    # This comes last, after all other checks: a process that fails after joining the process group
    # leaves the others waiting.
    cpu_distributed.prepare(cfg)
    return type(base.__name__, (mixin, base), {}).from_cfg(cfg)  # type: ignore[attr-defined]


class _Testing:
    """A mixin for Runners: a checkpoint must fit the model, and SyncBN works without a GPU."""

    _trains = False

    def wrap_model(self: Any, model_wrapper_cfg: Any, model: Any) -> Any:
        """See mmengine's Runner, which reverts SyncBN in a single process only."""
        if self.distributed and get_device() == "cpu":
            self.logger.info("no GPU: SyncBN layers become BN, with the images of each process")
            model = revert_sync_batchnorm(model)
        return super().wrap_model(model_wrapper_cfg, model)  # type: ignore[misc]

    def load_checkpoint(
        self: Any, filename: str, map_location: Any = "cpu", strict: bool = False, **kwargs: Any
    ) -> Any:
        """See mmengine's Runner, which leaves weights random where the file has none."""
        # In a training the weights may be those of another head, as mmengine's log says.
        strict = strict or bool(self._resume) or not self._trains
        try:
            return super().load_checkpoint(filename, map_location, strict, **kwargs)  # type: ignore[misc]
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:_REASON_SHOWN]
            raise RuntimeError(f"{filename} cannot be loaded into this model: {reason}") from error


class _Training(_Testing):
    """A mixin for Runners that train: one at a time in a folder, and resumed in that folder."""

    _trains = True
    _lock: IO[str] | None = None

    def setup_env(self: Any, env_cfg: Any) -> None:
        """See mmengine's Runner; nothing is written into the folder before this."""
        super().setup_env(env_cfg)  # type: ignore[misc]
        if self.rank == 0:
            self._lock = _lock(self.work_dir)

    def train(self: Any) -> Any:
        """See mmengine's Runner."""
        try:
            return super().train()  # type: ignore[misc]
        finally:
            if self._lock is not None:
                self._lock.close()

    def load_or_resume(self: Any) -> None:
        """See mmengine's Runner, which would resume from the folder that this is a copy of."""
        hooks = [hook for hook in self.hooks if isinstance(hook, CheckpointHook)]
        is_automatic = self._resume and self._load_from is None and not self._has_loaded
        if is_automatic and all(hook.out_dir is None for hook in hooks):
            last = last_checkpoint(Path(self.work_dir))
            self._load_from = last and str(last)
        super().load_or_resume()  # type: ignore[misc]

    def scale_lr(self: Any, optim_wrapper: Any, auto_scale_lr: Any = None) -> None:
        """See mmengine's Runner, which counts one batch for each step."""
        counts = self.cfg.optim_wrapper.get("accumulative_counts", 1)
        if (auto_scale_lr or {}).get("enable") and counts > 1:
            base = auto_scale_lr["base_batch_size"]
            self.logger.info(f"a step has {counts} batches, so {base} means {base}/{counts}")
            auto_scale_lr = dict(auto_scale_lr, base_batch_size=base / counts)
        super().scale_lr(optim_wrapper, auto_scale_lr)  # type: ignore[misc]


def _lock(folder: str) -> IO[str]:
    file = open(os.path.join(folder, ".training"), "w")  # noqa: SIM115 (the lock ends with it)
    try:
        # A lock of the process itself: its data workers do not hold it, and it ends with it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise RuntimeError(
            f"another training runs in {folder}; wait for its end, or choose another --work-dir"
        ) from error
    except OSError:  # a file system without locks
        pass
    return file
