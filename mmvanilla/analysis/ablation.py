"""Ablations: train configs with several seeds, fuse each result, and compare."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner
from torch import nn

from mmvanilla.apis.config import load_config
from mmvanilla.apis.runners import build_train_runner, release
from mmvanilla.models.fusion import fuse_model

# What a switch changes, as --cfg-options on one of configs/ablations/, whose `custom_hooks` hold
# nothing but the DeepTrainingHook: without pairs of convolutions nothing has a λ.
_SINGLE_CONVOLUTIONS: dict[str, Any] = {
    "model.backbone.deep_training": False,
    "model.head.deep_training": False,
    "custom_hooks": [],
}
SWITCHES: dict[str, dict[str, Any]] = {
    "full": {},
    "no_deep_training": _SINGLE_CONVOLUTIONS,
    "no_series_activation": {"model.backbone.series_activation": False},
    "plain": {"model.backbone.series_activation": False, **_SINGLE_CONVOLUTIONS},
    "n0": {"model.backbone.act_num": 0},
    "n1": {"model.backbone.act_num": 1},
    "n2": {"model.backbone.act_num": 2},
    "n4": {"model.backbone.act_num": 4},
    "shortcut_before_act": {"model.backbone.shortcut": "before_act"},
    "shortcut_after_act": {"model.backbone.shortcut": "after_act"},
}
"""The paper's ablations: the options of each, by which any tool can run it."""


def options_line(switch: str) -> str:
    """A switch of ``SWITCHES`` as the command line of any of OpenMMLab's tools takes it."""
    options = [f"{key}={value}" for key, value in SWITCHES[switch].items()]
    return " ".join(["--cfg-options", *options]) if options else ""


@dataclass(frozen=True)
class AblationRun:
    """The result of one training.

    Attributes:
        config: Name of the config, without folder and ending, and of the switch.
        seed: The seed of all random numbers.
        trained: The validation metric after training, as trained.
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


def run_ablation(
    config: str,
    seed: int,
    work_dir: str,
    switch: str = "",
    cfg_options: Mapping[str, Any] | None = None,
) -> AblationRun:
    """Train one config with one seed, then validate the model as trained and fused.

    Args:
        config: A config file with one validation metric.
        seed: Replaces the config's seed.
        work_dir: Logs and checkpoints go into a folder in here.
        switch: Name of the options, which becomes a part of the run's name.
        cfg_options: Dotted keys and their values, merged over the config.

    Raises:
        RuntimeError: The training ends before λ = 1, so that its model cannot be fused.
    """
    name = " ".join(filter(None, (Path(config).stem, switch)))
    folder = f"{name.replace(' ', '_')}_seed{seed}"
    runner = build_train_runner(
        config,
        work_dir=str(Path(work_dir) / folder),
        cfg_options={
            **(cfg_options or {}),
            "randomness.seed": seed,
            "experiment_name": folder,
            "log_level": "WARNING",
        },
    )
    runner.train()
    trained = _validate(runner, runner.model)
    fused_model, num_fused = fuse_model(runner.model.eval())
    fused = _validate(runner, fused_model)
    release(runner)
    parameters = sum(param.numel() for param in fused_model.parameters())
    return AblationRun(name, seed, trained, fused, num_fused, parameters)


def run_ablations(
    configs: Sequence[str],
    seeds: Sequence[int],
    work_dir: str,
    switches: Sequence[str] = ("full",),
    report: Callable[[AblationRun], object] = lambda run: None,
) -> list[AblationRun]:
    """Train every config with every switch and every seed, seed by seed.

    Args:
        configs: Config files.
        seeds: Seeds, at least one.
        work_dir: Folder that the runs' folders go into.
        switches: Names of ``SWITCHES``.
        report: Called with each result as soon as it is there.

    Returns:
        The results in the order of training.

    Raises:
        FileNotFoundError: A config does not exist.
        ValueError: A switch is unknown, two configs have the same name, or a seed or a switch is
            given twice.
    """
    for switch in switches:
        if switch not in SWITCHES:
            raise ValueError(f"unknown switch {switch!r}; choose from {', '.join(SWITCHES)}")
    names = [Path(config).stem for config in configs]
    given = dict(configs=names, seeds=[str(seed) for seed in seeds], switches=list(switches))
    for what, entries in given.items():
        twice = sorted({entry for entry in entries if entries.count(entry) > 1})
        if twice:
            raise ValueError(
                f"{what} {', '.join(twice)} given twice; their results could not be told apart"
            )
    for config in configs:
        load_config(config)  # a misspelt one must not fail after hours
    runs = []
    for seed in seeds:
        for config in configs:
            for switch in switches:
                runs.append(run_ablation(config, seed, work_dir, switch, SWITCHES[switch]))
                report(runs[-1])
    return runs


def ablation_table(runs: Sequence[AblationRun]) -> str:
    """Make a Markdown table: a row for each config and switch, mean ± deviation over the seeds."""
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
