"""Check a config's model without weights: does every part get the maps that it was built for?"""

from __future__ import annotations

from mmengine.config import Config
from torch import nn

from mmvanilla.apis.model import build_model, fixed_input_size
from mmvanilla.checks.findings import FAULT, Finding, fault, ok, warning, words
from mmvanilla.checks.forward import Failure, Pass, find_core, run_parts
from mmvanilla.checks.strides import check_strides

SUBJECT = "channels and levels"
# Every stride up to 128 divides both sides; with real numbers, small images are enough.
_LARGE, _SMALL = (1024, 1280), (256, 384)


def check_model(
    cfg: Config,
    model: nn.Module,
    one_process: bool = True,
) -> list[Finding]:
    """Run a model on an image and compare what each part gets with what it was built for.

    It runs on torch's meta device, without weights. An error there counts only if it also happens
    with real numbers.

    Args:
        cfg: The config.
        model: Its model, built on the meta device.
        one_process: Whether training will run in one process. Default: True.
    """
    only = fixed_input_size(model) or _anchors_size(model)
    run = run_parts(model, only or _LARGE)
    if run.failures:
        run = run_parts(build_model(cfg), only or _SMALL)
    findings = [_explain(model, run, failure) for failure in run.failures]
    findings += check_strides(model, run) + _check_unused(model, run, one_process)
    if not any(item.subject == SUBJECT and item.status == FAULT for item in findings):
        findings.insert(0, _what_ran(model, run))
    return findings


def _explain(model: nn.Module, run: Pass, failure: Failure) -> Finding:
    """Say which part failed, what it is built for and what arrives there."""
    part, place = failure.modules[0], failure.modules[-1]
    # The outermost module that got maps, such as the neck, is what the config names.
    outer = next((name for name in failure.modules if run.shapes.get(name)), None)
    text = f"model.{place}: {words(failure.error)}"
    if outer is not None:
        module = model.get_submodule(outer)
        built = [(key, getattr(module, key, None)) for key in ("in_channels", "in_index")]
        shapes = [tuple(shape[1:]) for shape in run.shapes[outer]]
        known = "".join(f"{key}={value}, " for key, value in built if value is not None)
        text += f" (model.{outer}: {known}gets {shapes})"
    remedy = "correct in_channels or in_index there, or out_indices of the backbone"
    # A backbone may be made for one size of images, which is not known here.
    is_certain = "neck" in place or "backbone" not in part
    return fault(SUBJECT, text, remedy, certain=is_certain)


def _check_unused(model: nn.Module, run: Pass, one_process: bool) -> list[Finding]:
    """Find layers that no output needs: several processes wait for their gradients."""
    prefix, core = find_core(model)
    name = f"{prefix}backbone"
    if name not in run.shapes or not run.features:
        return []
    unused = [
        child
        for child, module in core.backbone.named_modules()
        if f"{name}.{child}" not in run.shapes
        and any(each.requires_grad for each in module.parameters(recurse=False))
    ]
    if not unused:
        return []
    text = f"{len(unused)} layers of the backbone ({unused[0]}, …) reach no output"
    remedy = "add the last level to out_indices, or set find_unused_parameters=True"
    if one_process:
        text += ": training in several processes fails"
        return [warning("unused layers", text, remedy)]
    return [fault("unused layers", text, remedy, certain=True)]


def _what_ran(model: nn.Module, run: Pass) -> Finding:
    prefix, core = find_core(model)
    given = run.shapes.get(f"{prefix}neck") or run.shapes.get(f"{prefix}neck.0") or run.features
    maps = [f"1/{run.size[0] / shape[2]:.3g}" for shape in given if len(shape) == 4]
    channels = [shape[1] for shape in given]
    name = type(getattr(core, "backbone", core)).__name__
    text = f"{name} gives {', '.join(maps) or 'vectors'} of the image, {channels} channels"
    return ok(SUBJECT, f"{text}; run: {', '.join(run.ran) or 'nothing'}")


def _anchors_size(model: nn.Module) -> tuple[int, int] | None:
    """Return the size that anchors were made for, as those of SSD are."""
    for module in model.modules():
        size = getattr(getattr(module, "prior_generator", None), "input_size", None)
        if isinstance(size, int):
            return size, size
    return None
