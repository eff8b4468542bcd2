"""Train a config, fuse the result, and keep what both forms reach and cost.

    python -m projects.studies.training FOLDER

does what ``request.json`` in the folder asks for, and writes ``result.json`` beside it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from torch import nn

from mmvanilla.apis.complexity import count_config, count_macs
from mmvanilla.apis.model import input_channels
from mmvanilla.apis.runners import build_train_runner
from mmvanilla.checkpoints.writing import write_text
from mmvanilla.models.fusion import count_fusable, fuse_model

REQUEST, RESULT = "request.json", "result.json"
_NEVER = 10**9  # epochs or iterations


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
        cpu_minutes: Processor time of the training, of all threads; not that of loading in workers.
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
    options: Mapping[str, Any] | None = None,
    fuse: bool = True,
) -> Result:
    """Train one config with one seed, then validate the model as trained and fused.

    A network without layers to fuse, such as a ResNet, is trained and validated in the same way;
    its ``fused`` are the metrics as trained.

    Args:
        config: Path or name of a config for any toolbox, with a ``val_evaluator``.
        seed: Seed of all random numbers, instead of the config's.
        folder: Folder of the run, for its logs, checkpoints and whole config.
        options: Values by dotted key, which override entries of the config.
        fuse: Whether to fuse the trained model and validate it once more. Default: True.

    Raises:
        RuntimeError: The training ends before λ = 1, so that its model cannot be fused.
    """
    runner = build_train_runner(
        config,
        work_dir=str(folder),
        cfg_options={
            **(options or {}),
            "randomness.seed": seed,
            "experiment_name": Path(folder).name,
            "log_level": "WARNING",
            # Both forms are validated below: no validation within the time of the training.
            "train_cfg.val_begin": _NEVER,
        },
    )
    start, cpu_start = time.perf_counter(), time.process_time()
    runner.train()
    minutes = (time.perf_counter() - start) / 60
    cpu_minutes = (time.process_time() - cpu_start) / 60
    model: Any = _trained_model(runner).eval()
    trained = _validate(runner, model)
    num_fused = count_fusable(model)
    fused = trained if fuse else None
    if num_fused and fuse:
        model = fuse_model(model)
        fused = _validate(runner, model)
    batch = next(iter(runner.val_dataloader))
    height, width = model.data_preprocessor(batch, False)["inputs"].shape[-2:]
    counts, _ = count_config(runner.cfg, (height, width), ("deploy",))
    image = torch.zeros(1, input_channels(model), height, width)
    return Result(
        trained=trained,
        fused=fused,
        num_fused=num_fused,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=counts[-1].macs,
        backbone_macs=count_macs(model.backbone, image),
        image_size=[height, width],
        minutes=minutes,
        cpu_minutes=cpu_minutes,
    )


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


def main(folder: Path) -> None:
    """Do what the request in a folder asks for."""
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    result = train_and_compare(folder=folder, **request)
    write_text(f"{json.dumps(asdict(result))}\n", folder / RESULT, overwrite=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
