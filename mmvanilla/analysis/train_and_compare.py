"""Train a config, fuse the result, and report what both forms reach and cost."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import EMAHook
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn

from mmvanilla.analysis.complexity import count_config, count_macs
from mmvanilla.analysis.timing import Timing, time_interleaved
from mmvanilla.apis.model import input_channels
from mmvanilla.apis.runners import build_test_runner, build_train_runner, release
from mmvanilla.engine.channels_last import to_channels_last
from mmvanilla.models.fusion import count_fusable, fuse_model
from mmvanilla.utils.numerics import relative_difference

_NEVER = 10**9  # epochs or iterations
_MOST_DIFFERENCE = 1e-4  # of a backbone's features after folding, in float32


def train_and_compare(
    config: str,
    seed: int,
    folder: str | Path,
    cfg_options: Mapping[str, Any] | None = None,
    fuse: bool = True,
) -> dict[str, Any]:
    """Train one config with one seed, then validate the model as trained and fused.

    A network without layers to fuse, such as a ResNet, is trained and validated in the same way;
    its ``fused`` are the metrics as trained.

    Args:
        config: Path or name of a config for any toolbox, with a ``val_evaluator``.
        seed: Seed of all random numbers, instead of the config's.
        folder: Folder of the run, for its logs and checkpoints.
        cfg_options: Values by dotted key, which override entries of the config.
        fuse: Whether to fuse the trained model and validate it once more. Default: True.

    Returns:
        A dict of ``config`` (its name, without folder and suffix), ``seed``, ``trained`` and
        ``fused`` (metrics by name), ``num_fused`` (layers that fusing replaces), ``parameters``
        (after fusing, if it was fused), ``macs`` and
        ``backbone_macs`` (of the fused model, for one image of the validation set),
        ``image_size`` (its height and width in pixels), ``minutes`` and ``cpu_minutes`` (of the
        training alone, by the clock and by the processor time of this process), ``folder`` (with
        the checkpoint), and ``config_file`` (the whole config, as a file in it).

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
    fused = trained
    if num_fused and fuse:
        fused_model = fuse_model(fused_model)
        fused = _validate(runner, fused_model)
    size = _image_size(runner)
    counts, _ = count_config(runner.cfg, size, ("deploy",))
    image = torch.zeros(1, input_channels(fused_model), *size)
    result = {
        "config": Path(config).stem,
        "seed": seed,
        "trained": trained,
        "fused": fused,
        "num_fused": num_fused,
        "parameters": sum(parameter.numel() for parameter in fused_model.parameters()),
        "macs": counts[-1].macs,
        "backbone_macs": count_macs(fused_model.backbone, image),
        "image_size": list(size),
        "minutes": minutes,
        "cpu_minutes": cpu_minutes,
        "folder": str(folder),
        "config_file": str(folder / Path(runner.cfg.filename).name),
    }
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
    results: Sequence[Mapping[str, Any]], rounds: int = 30, warmup: int = 3
) -> dict[str, Timing]:
    """Time whole trained networks on one image after the other, from pixels to predictions.

    Each is fused, every batch norm that is left is folded into its convolution, a ResNet's too, and
    runs in the memory format channels_last. They run in turns.

    Args:
        results: What :func:`train_and_compare` returned for each, with different names.
        rounds: Number of timed images, at least 2.
        warmup: Number of images before these.

    Returns:
        The times in milliseconds, by the name of the result.

    Raises:
        RuntimeError: Folding changed the features of a backbone.
    """
    runs = {str(result["config"]): _prepare(result) for result in results}
    return time_interleaved(runs, rounds, warmup)


def _prepare(result: Mapping[str, Any]) -> Callable[[], object]:
    from mmcv.cnn.utils import fuse_conv_bn

    runner = build_test_runner(
        str(result["config_file"]),
        str(find_latest_checkpoint(str(result["folder"]))),
        work_dir=str(Path(str(result["folder"]), "timing")),
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
            f"{result['config']}: folding the batch norms changed the features by {difference:.1e} "
            f"of their size, expected at most {_MOST_DIFFERENCE:.0e}; time it without folding"
        )
    to_channels_last(plain)

    @torch.no_grad()
    def run() -> object:
        return plain.test_step(copy.deepcopy(batch))

    return run
