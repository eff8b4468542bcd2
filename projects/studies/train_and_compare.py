"""Train a config, fuse the result, and report what both forms reach and cost."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import EMAHook
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn

from mmvanilla.apis.complexity import count_config, count_macs
from mmvanilla.apis.model import input_channels
from mmvanilla.apis.runners import build_test_runner, build_train_runner, release
from mmvanilla.apis.timing import Timing, time_interleaved
from mmvanilla.engine.channels_last import to_channels_last
from mmvanilla.models.fusion import count_fusable, fuse_model
from mmvanilla.utils.numerics import relative_difference

_NEVER = 10**9  # epochs or iterations
_MOST_DIFFERENCE = 1e-4  # of a backbone's features after folding, in float32


@dataclass(frozen=True)
class Result:
    """What one training gave.

    Attributes:
        trained: The validation metrics of the model as trained, by name.
        fused: Those of the fused model; None if it was not to be fused.
        num_fused: Number of layers that fusing replaces.
        parameters: Number of parameters, after fusing if it was fused.
        macs: Multiply-accumulates of the fused model for one image of the validation set.
        backbone_macs: Those of its backbone alone.
        image_size: Height and width of this image in pixels.
        minutes: Time of the training alone, by the clock.
        cpu_minutes: Processor time of the training, of all threads.
    """

    trained: dict[str, float]
    fused: dict[str, float] | None
    num_fused: int
    parameters: int
    macs: int
    backbone_macs: int
    image_size: list[int]
    minutes: float
    cpu_minutes: float


def train_and_compare(
    config: str,
    seed: int,
    folder: str | Path,
    cfg_options: Mapping[str, Any] | None = None,
    fuse: bool = True,
) -> Result:
    """Train one config with one seed, then validate the model as trained and fused.

    A network without layers to fuse, such as a ResNet, is trained and validated in the same way;
    its ``fused`` are the metrics as trained.

    Args:
        config: Path or name of a config for any toolbox, with a ``val_evaluator``.
        seed: Seed of all random numbers, instead of the config's.
        folder: Folder of the run, for its logs, checkpoints and whole config.
        cfg_options: Values by dotted key, which override entries of the config.
        fuse: Whether to fuse the trained model and validate it once more. Default: True.

    Raises:
        RuntimeError: The training ends before λ = 1, so that its model cannot be fused.
    """
    folder = Path(folder)
    runner = build_train_runner(
        config,
        work_dir=str(folder),
        cfg_options={
            **(cfg_options or {}),
            "randomness.seed": seed,
            "experiment_name": folder.name,
            "log_level": "WARNING",
            # Both forms are validated below: no validation within the time of the training.
            "train_cfg.val_begin": _NEVER,
        },
    )
    start, cpu_start = time.perf_counter(), time.process_time()
    runner.train()
    minutes = (time.perf_counter() - start) / 60
    cpu_minutes = (time.process_time() - cpu_start) / 60
    model = _trained_model(runner)
    trained = _validate(runner, model)
    num_fused = count_fusable(model)
    fused_model: Any = model.eval()
    fused = trained if fuse else None
    if num_fused and fuse:
        fused_model = fuse_model(fused_model)
        fused = _validate(runner, fused_model)
    size = _image_size(runner)
    counts, _ = count_config(runner.cfg, size, ("deploy",))
    image = torch.zeros(1, input_channels(fused_model), *size)
    result = Result(
        trained=trained,
        fused=fused,
        num_fused=num_fused,
        parameters=sum(parameter.numel() for parameter in fused_model.parameters()),
        macs=counts[-1].macs,
        backbone_macs=count_macs(fused_model.backbone, image),
        image_size=list(size),
        minutes=minutes,
        cpu_minutes=cpu_minutes,
    )
    release(runner)
    return result


def _trained_model(runner: Runner) -> nn.Module:
    """Return what a checkpoint would hold: the averages of an ``EMAHook``, or else the model."""
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            runner.hooks.remove(hook)  # it would exchange the weights for each validation
            return hook.ema_model.module
    return runner.model


@torch.no_grad()
def _validate(runner: Runner, model: nn.Module) -> dict[str, float]:
    runner.model = model
    return {name: float(value) for name, value in runner.val().items()}


def _image_size(runner: Runner) -> tuple[int, int]:
    """Return the height and width of the first image that the validation gives the model."""
    batch = next(iter(runner.val_dataloader))
    inputs = runner.model.data_preprocessor(batch, False)["inputs"]
    return int(inputs.shape[-2]), int(inputs.shape[-1])


def time_fused(
    folders: Mapping[str, str | Path], rounds: int = 30, warmup: int = 3
) -> dict[str, Timing]:
    """Time whole trained networks on one image after the other, from pixels to predictions.

    Each is fused, every batch norm that is left is folded into its convolution, a ResNet's too, and
    runs in the memory format channels_last. They run in turns.

    Args:
        folders: The folder of :func:`train_and_compare` of each network, by the network's name.
        rounds: Number of timed images, at least 2.
        warmup: Number of images before these.

    Returns:
        The times in milliseconds, by the network's name.

    Raises:
        FileNotFoundError: A folder does not have exactly one config.
        RuntimeError: Folding changed the features of a backbone.
    """
    runs = {name: _prepare(name, Path(folder)) for name, folder in folders.items()}
    return time_interleaved(runs, rounds, warmup)


def _prepare(name: str, folder: Path) -> Callable[[], object]:
    from mmcv.cnn.utils import fuse_conv_bn

    configs = list(folder.glob("*.py"))
    if len(configs) != 1:
        raise FileNotFoundError(
            f"{folder} has {len(configs)} configs, expected the one of a training; train {name} "
            "again, into an empty folder"
        )
    runner = build_test_runner(
        str(configs[0]),
        str(find_latest_checkpoint(str(folder))),
        work_dir=str(folder / "timing"),
        cfg_options={"test_dataloader.batch_size": 1, "log_level": "WARNING"},
    )
    runner.load_or_resume()
    model = runner.model.eval()
    batch = next(iter(runner.test_dataloader))
    release(runner)
    plain = fuse_model(model) if count_fusable(model) else model
    plain = fuse_conv_bn(copy.deepcopy(plain))
    with torch.no_grad():
        images = model.data_preprocessor(copy.deepcopy(batch), False)["inputs"]
        difference = relative_difference(model.backbone(images)[-1], plain.backbone(images)[-1])
    if difference > _MOST_DIFFERENCE:
        raise RuntimeError(
            f"{name}: folding the batch norms changed the features by {difference:.1e} "
            f"of their size, expected at most {_MOST_DIFFERENCE:.0e}; time it without folding"
        )
    to_channels_last(plain)

    @torch.no_grad()
    def run() -> object:
        return plain.test_step(copy.deepcopy(batch))

    return run
