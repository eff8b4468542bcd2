"""Check a config's model without weights: does every part get the maps that it was built for?"""

from __future__ import annotations

from mmengine.config import Config
from torch import nn

from mmvanilla.apis.model import build_model, fixed_input_size
from mmvanilla.checks.failures import SUBJECT, check_extractors, explain_failures
from mmvanilla.checks.findings import FAULT, Finding, fault, listed, ok, warning
from mmvanilla.checks.forward import Pass, find_core, run_parts, run_whole
from mmvanilla.checks.out_indices import fitting_levels
from mmvanilla.checks.sizes import sizes_to_check
from mmvanilla.checks.strides import SUBJECT as STRIDES
from mmvanilla.checks.strides import check_strides

# With real numbers, a small image is enough.
_SMALL, _OTHER = (256, 384), (320, 256)
_BATCH_NORM = "Expected more than 1 value per channel"


def check_model(
    cfg: Config,
    model: nn.Module,
    size: tuple[int, int] | None = None,
    thorough: bool = True,
    one_process: bool = True,
) -> list[Finding]:
    """Run a model on an image and compare what each part gets with what it was built for.

    It runs on torch's meta device, without weights. An error there counts only if the same happens
    with real numbers.

    Args:
        cfg: The config.
        model: Its model, built on the meta device.
        size: Height and width of the image in pixels. None: the size that the config trains with,
            and a large one.
        thorough: Whether to let a detector also predict with random weights, for what is between
            its heads, and to look for the levels that would fit. Default: True.
        one_process: Whether training will run in one process, where SyncBN is replaced by BN.
            Default: True.
    """
    model.eval()
    sizes = [size] if size is not None else sizes_to_check(cfg, model)
    passes = [run_parts(model, each) for each in sizes]
    # Of the large size only the maps count: a network may be made for one size.
    failed = explain_failures(cfg.model, passes[0])
    if any(item.certain or (thorough and item.status != FAULT) for item in failed):
        real, failed = _run_for_real(cfg, model, failed)
        passes.append(real)
    findings = failed + check_strides(model, passes) + check_extractors(model, passes[-1])
    if thorough and not any(item.status == FAULT for item in findings):
        findings += _check_whole(cfg, model)
    findings += _check_batch_of_one(cfg, model, sizes[0], one_process)
    if not any(item.subject == SUBJECT and item.status == FAULT for item in findings):
        findings.insert(0, _what_ran(model, passes[-1]))
    if any(item.subject == STRIDES and item.status == FAULT for item in findings):
        findings = _with_remedy(cfg, findings)
    return list(dict.fromkeys(findings))


def _run_for_real(
    cfg: Config, model: nn.Module, failed: list[Finding]
) -> tuple[Pass, list[Finding]]:
    """Run a model with weights, since not everything runs on the meta device.

    Returns:
        The forward pass, and its faults. A fault that depends on the size of the image is not
        certain: the size that the training has is not known for certain either.
    """
    only = fixed_input_size(model)
    real = build_model(cfg).eval()
    run = run_parts(real, only or _SMALL)
    found = explain_failures(cfg.model, run)
    if only is None and found:
        other = explain_failures(cfg.model, run_parts(real, _OTHER))
        found = [item if item in other else item._replace(certain=False) for item in found]
    return run, [item for item in failed if item.status == FAULT and not item.certain] + found


def _what_ran(model: nn.Module, run: Pass) -> Finding:
    prefix, core = find_core(model)
    names = [name.removeprefix(prefix) for name in run.ran]
    given = run.maps.get(f"{prefix}neck", run.maps.get(f"{prefix}neck.0", run.features))
    strides = [f"1/{run.size[0] / map_.height:.3g}" for map_ in given]
    channels = listed([map_.channels for map_ in given])
    maps = f"{', '.join(strides)} of the image, {channels} channels" if given else "vectors"
    name = type(getattr(core, "backbone", core)).__name__
    return ok(SUBJECT, f"{name} gives {maps}; run: {', '.join(names) or 'nothing'}")


def _check_whole(cfg: Config, model: nn.Module) -> list[Finding]:
    """Let a detector predict, so that what needs regions or data samples runs too."""
    _, core = find_core(model)
    is_detector = any(kind.__module__.startswith("mmdet.models.det") for kind in type(core).__mro__)
    if not is_detector or not hasattr(core, "predict"):
        return []
    real = build_model(cfg).eval()
    whole = run_whole(real, fixed_input_size(model) or _SMALL)
    found = explain_failures(cfg.model, whole)
    strides = [item for item in check_strides(real, [whole]) if item.status == FAULT]
    return found + strides or [ok("prediction", "the detector predicts on an image")]


def _check_batch_of_one(
    cfg: Config, model: nn.Module, size: tuple[int, int], one_process: bool
) -> list[Finding]:
    loader = cfg.get("train_dataloader") or {}
    if loader.get("batch_size") != 1:
        return []
    failures = run_parts(model.train(), size).failures
    model.eval()
    parts = [failure.part for failure in failures if _BATCH_NORM in str(failure.error)]
    synchronised = "SyncB" in str(cfg.model)
    return [
        (warning if synchronised and not one_process else _certain_fault)(
            "batch",
            f"model.{part}: batch norm cannot train on one value, a map of 1x1 pixels in a batch "
            "of one image" + (" (SyncBN needs several processes)" if synchronised else ""),
            "set train_dataloader.batch_size=2 or more, or norm_cfg=dict(type='GN', num_groups=32) "
            "there",
        )
        for part in parts
    ]


def _certain_fault(subject: str, text: str, remedy: str) -> Finding:
    return fault(subject, text, remedy, certain=True)


def _with_remedy(cfg: Config, findings: list[Finding]) -> list[Finding]:
    """Replace the general remedy for wrong strides by levels that were tried and fit."""
    remedy = fitting_levels(cfg)
    if remedy is None:
        return findings
    return [
        item._replace(remedy=remedy) if item.subject == STRIDES and item.status == FAULT else item
        for item in findings
    ]
