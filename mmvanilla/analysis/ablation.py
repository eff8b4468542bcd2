"""Ablations: train configs with several seeds, fuse each result, and compare."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmvanilla.analysis.train_and_compare import train_and_compare
from mmvanilla.apis.config import load_config

# Options of the switches, as --cfg-options for one of configs/ablations/. Their `custom_hooks` have
# only the DeepTrainingHook, which fails without pairs of convolutions, since nothing has a λ then.
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
"""The paper's ablations by name: the options with which any tool can train each of them."""


def options_line(switch: str) -> str:
    """Write a switch of ``SWITCHES`` as options for the command line of OpenMMLab's tools."""
    options = [f"{key}={value}" for key, value in SWITCHES[switch].items()]
    return " ".join(["--cfg-options", *options]) if options else ""


@dataclass(frozen=True)
class AblationRun:
    """The result of one training.

    Attributes:
        config: Name of the config, without folder and suffix, and name of the switch.
        seed: Seed of all random numbers.
        trained: Validation metric of the model as trained.
        fused: Validation metric of the fused model.
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
        config: Path of a config file with one validation metric.
        seed: Seed of all random numbers, instead of the config's.
        work_dir: Folder in which the run gets a folder for its logs and checkpoints.
        switch: Name of the options, which becomes a part of the run's name.
        cfg_options: Values by dotted key, which override entries of the config.

    Raises:
        RuntimeError: The training ends before λ = 1, so that its model cannot be fused.
    """
    name = " ".join(filter(None, (Path(config).stem, switch)))
    result = train_and_compare(config, seed, work_dir, cfg_options, name)
    trained, fused = (_only_metric(result[form]) for form in ("trained", "fused"))
    return AblationRun(name, seed, trained, fused, result["num_fused"], result["parameters"])


def run_ablations(
    configs: Sequence[str],
    seeds: Sequence[int],
    work_dir: str,
    switches: Sequence[str] = ("full",),
    report: Callable[[AblationRun], object] = lambda run: None,
) -> list[AblationRun]:
    """Train every config with every switch and every seed, seed by seed.

    Args:
        configs: Paths of the config files.
        seeds: Seeds to train with, at least one.
        work_dir: Folder in which each run gets a folder of its own.
        switches: Keys of ``SWITCHES`` to train with. Default: only ``'full'``.
        report: Function that is called with each result when it is available.

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
                f"{what} {', '.join(twice)} given twice, whose results could not be distinguished; "
                "give each only once"
            )
    for config in configs:
        load_config(config)  # fail now, not after hours of training
    runs = []
    for seed in seeds:
        for config in configs:
            for switch in switches:
                runs.append(run_ablation(config, seed, work_dir, switch, SWITCHES[switch]))
                report(runs[-1])
    return runs


def ablation_table(runs: Sequence[AblationRun]) -> str:
    """Make a Markdown table of means ± deviations over the seeds, for each config and switch."""
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


def _only_metric(metrics: Mapping[str, float]) -> float:
    if len(metrics) != 1:
        raise ValueError(
            f"an ablation compares one metric, found {', '.join(metrics)}; leave one in the "
            "config's val_evaluator"
        )
    return next(iter(metrics.values()))
