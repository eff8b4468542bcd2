"""Ablations: train configs with several seeds, fuse each result, and compare."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.runner import Runner
from torch import nn

from mmvanilla.apis.config import load_config
from mmvanilla.apis.runners import build_train_runner
from mmvanilla.models.fusion import fuse_model


@dataclass(frozen=True)
class AblationRun:
    """The result of one training.

    Attributes:
        config: Name of the config, without folder and ending.
        seed: Seed of everything random.
        trained: Validation metric of the model as trained.
        fused: The same metric of the fused model.
        num_fused: Number of layers that fusing replaced.
        parameters: Number of parameters after fusing.
    """

    config: str
    seed: int
    trained: float
    fused: float
    num_fused: int
    parameters: int


def run_ablation(config: str, seed: int, work_dir: str) -> AblationRun:
    """Train one config with one seed, then validate the model as trained and fused.

    Args:
        config: A config file with one validation metric.
        seed: Seed that replaces the config's.
        work_dir: Folder in which a folder for logs and checkpoints is made.

    Raises:
        RuntimeError: The training ends before λ = 1, so that its model cannot be fused.
    """
    name = Path(config).stem
    runner = build_train_runner(
        config,
        work_dir=str(Path(work_dir) / f"{name}_seed{seed}"),
        cfg_options={
            "randomness.seed": seed,
            "experiment_name": f"{name}_seed{seed}",
            "log_level": "WARNING",
        },
    )
    runner.train()
    trained = _validate(runner, runner.model)
    fused_model, num_fused = fuse_model(runner.model.eval())
    fused = _validate(runner, fused_model)
    parameters = sum(param.numel() for param in fused_model.parameters())
    return AblationRun(name, seed, trained, fused, num_fused, parameters)


def run_ablations(
    configs: Sequence[str],
    seeds: Sequence[int],
    work_dir: str,
    report: Callable[[AblationRun], object] = lambda run: None,
) -> list[AblationRun]:
    """Train every config with every seed, seed by seed.

    Args:
        configs: Config files.
        seeds: Seeds, at least one.
        work_dir: Folder for the folders of all runs.
        report: Called with each result as soon as it is there.

    Returns:
        The results in the order of training.

    Raises:
        FileNotFoundError: A config does not exist.
        ValueError: Two configs have the same name, or a seed is given twice.
    """
    names = [Path(config).stem for config in configs]
    for what, given in (("configs", names), ("seeds", [str(seed) for seed in seeds])):
        twice = sorted({entry for entry in given if given.count(entry) > 1})
        if twice:
            raise ValueError(
                f"{what} {', '.join(twice)} given twice; their results could not be told apart"
            )
    for config in configs:
        load_config(config)  # a misspelt one must not fail after hours
    runs = []
    for seed in seeds:
        for config in configs:
            runs.append(run_ablation(config, seed, work_dir))
            report(runs[-1])
    return runs


def ablation_table(runs: Sequence[AblationRun]) -> str:
    """Make a Markdown table: a row for each config, mean ± standard deviation over the seeds."""
    rows = [
        "| config | seeds | metric | metric, fused | parameters, fused | layers fused |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(run.config for run in runs):
        own = [run for run in runs if run.config == name]
        cells = [
            name,
            str(len(own)),
            _mean_and_deviation([run.trained for run in own]),
            _mean_and_deviation([run.fused for run in own]),
            f"{own[0].parameters:,}",
            str(own[0].num_fused),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _mean_and_deviation(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


@torch.no_grad()
def _validate(runner: Runner, model: nn.Module) -> float:
    runner.model = model
    metrics = runner.val()
    if len(metrics) != 1:
        raise ValueError(
            f"an ablation compares one metric, found {', '.join(metrics)}; leave one in the "
            "config's val_evaluator"
        )
    return float(next(iter(metrics.values())))
