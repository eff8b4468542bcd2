"""Build a Runner from a config file and the options of a command line, for all toolboxes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmvanilla.apis.config import load_config
from mmvanilla.apis.data_checks import require_data
from mmvanilla.apis.mixed_precision import set_mixed_precision
from mmvanilla.apis.pictures import switch_pictures_on
from mmvanilla.apis.safe_runner import build_runner
from mmvanilla.apis.speed import set_channels_last, set_compiled
from mmvanilla.engine import cpu_distributed
from mmvanilla.engine.layer_decay import require_own_constructor


def build_train_runner(
    config: str,
    work_dir: str | None = None,
    amp: bool | None = None,
    auto_scale_lr: bool = False,
    resume: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = "none",
    channels_last: bool | None = None,
    compiled: bool | None = None,
) -> Runner:
    """Build the Runner that ``mmvanilla train`` trains with.

    Args:
        config: Path or name of the config, as in :func:`mmvanilla.apis.config.load_config`.
        work_dir: Folder for logs and checkpoints. Default: the config's ``work_dir``, or
            ``work_dirs/<name of the config>``.
        amp: Whether to train with automatic mixed precision, which needs a GPU. None: as the config
            says.
        auto_scale_lr: Whether to scale the learning rate from the config's base batch size to the
            actual one. Default: False.
        resume: Path of the checkpoint to resume from, or ``'auto'`` for the newest one in
            ``work_dir``. None: the training starts from the beginning.
        cfg_options: Values by dotted key, which override entries of the config.
        launcher: Launcher of the processes: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        channels_last: Whether convolutions run in the memory format channels_last. None: as the
            config says.
        compiled: Whether to use ``torch.compile``. None: as the config says.

    Raises:
        FileNotFoundError: The config, or a data set that it names, does not exist.
        ValueError: The config cannot be read or is not for training, ``auto_scale_lr`` is True and
            the config has no base batch size, or mixed precision is asked for without a GPU.
    """
    cfg = _read(config, work_dir, cfg_options, launcher)
    _require_entries(cfg, "training", "train_dataloader", "train_cfg", "optim_wrapper")
    for name in ("max_epochs", "max_iters"):
        length = cfg.train_cfg.get(name)
        if isinstance(length, int) and length < 1:  # mmengine would not train, without an error
            raise ValueError(f"{cfg.filename}: train_cfg.{name} must be at least 1, found {length}")
    init_default_scope(cfg.get("default_scope") or "mmengine")
    require_own_constructor(cfg.optim_wrapper)
    set_mixed_precision(cfg, amp)
    set_channels_last(cfg, channels_last)
    set_compiled(cfg, compiled)
    require_data(cfg, "train_dataloader", "val_dataloader")
    if auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise ValueError(
                f"{config} has no auto_scale_lr.base_batch_size, from which --auto-scale-lr would "
                "scale; add auto_scale_lr=dict(base_batch_size=...)"
            )
        cfg.auto_scale_lr.enable = True
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == "auto" else resume
    return _build_runner(cfg)


def build_test_runner(
    config: str,
    checkpoint: str | None,
    work_dir: str | None = None,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2.0,
    tta: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = "none",
    channels_last: bool | None = None,
    compiled: bool | None = None,
) -> Runner:
    """Build the Runner that ``mmvanilla test`` tests with.

    Args:
        config: Path of the config file.
        checkpoint: Weights for the config's model: the path of a file, or an address that
            mmengine's loader knows. None: the model has its weights already.
        work_dir: Folder for logs. Default: as in :func:`build_train_runner`.
        out: Path of a ``.pkl`` file for the raw predictions. None: they are not saved.
        show: Whether to show each prediction in a window. Default: False.
        show_dir: Folder for pictures of the predictions; a relative path is inside of the folder
            of this run, ``<work_dir>/<time>/``. None: none are drawn.
        wait_time: Time in seconds for which each window is shown.
        tta: Whether to use test-time augmentation, with the config's ``tta_model`` and
            ``tta_pipeline``. Default: False.
        cfg_options: Values by dotted key, which override entries of the config.
        launcher: Launcher of the processes: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        channels_last: Whether convolutions run in the memory format channels_last. None: as the
            config says.
        compiled: Whether to use ``torch.compile``. None: as the config says.

    Raises:
        FileNotFoundError: The config, the checkpoint or the data set does not exist.
        ValueError: An option does not fit this config.
    """
    if checkpoint and "://" not in checkpoint and not Path(checkpoint).is_file():
        raise FileNotFoundError(
            f"no checkpoint at {checkpoint}; check the path and the working directory"
        )
    if out is not None and not out.endswith((".pkl", ".pickle")):
        raise ValueError(f"--out is {out}; give a name that ends in .pkl")
    cfg = _read(config, work_dir, cfg_options, launcher)
    _require_entries(cfg, "testing", "test_dataloader", "test_evaluator")
    set_channels_last(cfg, channels_last)
    set_compiled(cfg, compiled)
    require_data(cfg, "test_dataloader")
    cfg.load_from = checkpoint
    if show or show_dir:
        if tta and cfg.get("default_scope") == "mmpretrain":
            raise ValueError(
                "MMPretrain's hook cannot draw the augmented images of --tta; leave --tta, or "
                "--show and --show-dir, out"
            )
        switch_pictures_on(cfg, show, show_dir, wait_time)
    if tta:
        _switch_tta_on(cfg)
    runner = _build_runner(cfg)
    if out is not None:
        is_detector = cfg.get("default_scope") == "mmdet"
        runner.test_evaluator.metrics.append(
            _build_metric("mmdet.DumpDetResults" if is_detector else "DumpResults", out)
        )
    return runner


def release(runner: Runner) -> None:
    """Close the log of a Runner that is done with, and let mmengine forget its experiment.

    mmengine keeps the logger with its open file, the message hub and the visualizer of each
    experiment as long as the process lives. Whoever builds many Runners releases each.

    Args:
        runner: A Runner that is not used any more.
    """
    for handler in list(runner.logger.handlers):
        if isinstance(handler, logging.FileHandler):
            handler.close()
            runner.logger.removeHandler(handler)
    for kept in (runner.logger, runner.message_hub, runner.visualizer):
        for kind in type(kept).__mro__:  # a toolbox's visualizer is kept by its parent, too
            getattr(kind, "_instance_dict", {}).pop(kept.instance_name, None)


def _read(
    config: str, work_dir: str | None, cfg_options: Mapping[str, Any] | None, launcher: str
) -> Config:
    cfg = load_config(config, cfg_options)
    cfg.launcher = launcher
    cfg.work_dir = (
        work_dir or cfg.get("work_dir") or os.path.join("work_dirs", Path(cfg.filename).stem)
    )
    return cfg


def _require_entries(cfg: Config, purpose: str, *names: str) -> None:
    missing = [name for name in names if cfg.get(name) is None]
    if missing:
        raise ValueError(
            f"{cfg.filename} is not for {purpose}: it has no {', '.join(missing)}; add what is "
            "missing, or take another config"
        )


def _build_runner(cfg: Config) -> Runner:
    # This comes last, after all other checks: a process that fails after joining the process group
    # leaves the others waiting.
    cpu_distributed.prepare(cfg)
    return build_runner(cfg)


def _build_metric(type_name: str, out: str) -> Any:
    from mmengine.registry import METRICS

    return METRICS.build(dict(type=type_name, out_file_path=out))


def _switch_tta_on(cfg: Config) -> None:
    if "tta_model" not in cfg or "tta_pipeline" not in cfg:
        raise ValueError(
            f"{cfg.filename} has no tta_model and tta_pipeline, which --tta needs; add both, or "
            "leave --tta out"
        )
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model
