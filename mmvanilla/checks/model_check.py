"""Check a config's model without weights: does every part get the maps that it was built for?

A head multiplies with the strides of its config, whatever maps it gets: with others than these it
trains without an error, and finds nothing where it should.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmvanilla.apis.complexity import region_heads
from mmvanilla.apis.model import build_model, fixed_input_size, input_channels
from mmvanilla.checks.findings import FAULT, OK, WARNING, Finding, words
from mmvanilla.models.vanillanet import VanillaNet

CHANNELS, STRIDES = "channels and levels", "strides"
# Every stride up to 128 divides both sides; with real numbers, small images are enough.
_LARGE, _SMALL = (1024, 1280), (256, 384)
# Where the heads of the toolboxes keep their strides: the first that is there counts.
_GENERATORS = ("prior_generator", "anchor_generator", "square_anchor_generator")
_ATTRIBUTES = ("featmap_strides", "feature_strides", "anchor_strides", "point_strides", "strides")
_HEADS = [f"{kind}_head" for kind in ("rpn", "bbox", "mask", "panoptic", "semantic", "decode")]
_HEADS += ["auxiliary_head", "head"]


@dataclass
class Pass:
    """What one forward pass showed."""

    size: tuple[int, int]  #: height and width of the image
    shapes: dict[str, list[torch.Size]] = field(default_factory=dict)  #: that each module got
    features: list[torch.Size] = field(default_factory=list)  #: behind backbone and neck
    failures: list[tuple[str, Exception]] = field(default_factory=list)  #: and their modules


def check_model(cfg: Config, model: nn.Module) -> list[Finding]:
    """Run a model on an image and compare what each part gets with what it was built for.

    It is on torch's meta device, where an error counts only if it also happens with real numbers.
    """
    if not hasattr(find_core(model)[1], "extract_feat"):
        return []  # a model of no toolbox, of which nobody knows how it runs
    only = fixed_input_size(model) or _anchors_size(model)
    run = run_parts(model, only or _LARGE)
    if run.failures:
        run = run_parts(build_model(cfg), only or _SMALL)
    findings = [_explain(model, run, *failure) for failure in run.failures]
    findings += _check_strides(model, run)
    if not any(item.subject == CHANNELS for item in findings):
        shapes = [list(shape[1:]) for shape in run.features]
        text = f"backbone and neck give {shapes} of {run.size}, which the heads take"
        findings.insert(0, Finding(OK, CHANNELS, text))
    return findings


def _explain(model: nn.Module, run: Pass, running: str, error: Exception) -> Finding:
    """Say which part failed, what it is built for and what arrives there."""
    text = f"model.{running}: {words(error)}"
    # The outermost module that got maps, such as the neck, is what the config names.
    names = accumulate(running.split("."), "{}.{}".format)
    outer = next((name for name in names if run.shapes.get(name)), None)
    if outer is not None:
        module = model.get_submodule(outer)
        built = [(key, getattr(module, key, None)) for key in ("in_channels", "in_index")]
        known = "".join(f"{key}={value}, " for key, value in built if value is not None)
        shapes = [tuple(shape[1:]) for shape in run.shapes[outer]]
        text += f" (model.{outer}: {known}gets {shapes})"
    remedy = "correct in_channels or in_index there, or out_indices of the backbone"
    if isinstance(error, NotImplementedError):
        remedy = "take another layer there, or install what it needs"
    # A network of others may be made for one size of images, which is not known here.
    is_ours = any(isinstance(module, VanillaNet) for module in model.modules())
    return Finding(FAULT if is_ours else WARNING, CHANNELS, text, remedy, is_ours)


def _check_strides(model: nn.Module, run: Pass) -> Iterator[Finding]:
    """Compare the maps of a forward pass with the strides that each part was built for."""
    for name, module, strides in _built_for_strides(model):
        maps = run.shapes.get(name) or ([] if "head" in name.split(".")[-1] else run.features)
        index = getattr(module, "in_index", None)
        if isinstance(index, list | tuple) and all(-len(maps) <= i < len(maps) for i in index):
            maps = [maps[i] for i in index]
        # Some heads resize their maps first, and one stride may be that of masks or semantics.
        is_other = hasattr(module, "resize_feats") or (len(strides) == 1 < len(maps))
        if "extractor" in name:  # the RoI head gives it as many maps as it has strides
            maps = maps[: len(strides)]
        if not maps or is_other or any(len(shape) != 4 for shape in maps):
            continue
        text = f"model.{name} is built for maps of the strides "
        text += ", ".join(f"{high:g}" for high, _ in strides)
        if _fit(strides, maps, run.size):
            yield Finding(OK, STRIDES, f"{text} and gets them")
            continue
        text += ", but gets " + ", ".join(f"{run.size[0] / shape[2]:.3g}" for shape in maps)
        remedy = "choose out_indices of the backbone and in_channels, start_level and num_outs of "
        remedy += "the neck so that they give these strides, or correct those of the head"
        yield Finding(FAULT, STRIDES, text, remedy, certain=True)


def _built_for_strides(model: nn.Module) -> Iterator[tuple[str, Any, list[tuple[float, float]]]]:
    """Find the heads, RoI extractors and decoders that know (vertical, horizontal) strides."""
    prefix, core = find_core(model)
    outer: tuple[str, ...] = ("backbone.", "neck.")
    for name, module in core.named_modules():
        last = name.rstrip(".0123456789").split(".")[-1]
        is_part = last.endswith(("head", "extractor", "pixel_decoder")) or last == "stages"
        if name.startswith(outer) or not is_part:
            continue
        found = [getattr(getattr(module, each, None), "strides", None) for each in _GENERATORS]
        found += [getattr(module, each, None) for each in _ATTRIBUTES]
        strides = next((each for each in found if isinstance(each, list | tuple) and each), ())
        if strides:  # mmdet writes pairs as (horizontal, vertical)
            pairs = [each if isinstance(each, list | tuple) else (each, each) for each in strides]
            outer += (f"{name}.",)
            yield prefix + name, module, [(float(pair[-1]), float(pair[0])) for pair in pairs]


def _fit(strides: Sequence[Any], maps: Sequence[torch.Size], size: tuple[int, int]) -> bool:
    return len(maps) == len(strides) and all(
        # Rounded sizes, and strides that were measured at one size, as those of YOLACT.
        abs(pixels / count / step - 1) < 0.3 or abs(pixels / step - count) <= 1
        for shape, stride in zip(maps, strides, strict=True)
        for pixels, count, step in zip(size, shape[2:], stride, strict=True)
    )


def _anchors_size(model: nn.Module) -> tuple[int, int] | None:
    """Return the size that anchors were made for, as those of SSD are."""
    generators = (getattr(module, "prior_generator", None) for module in model.modules())
    sizes = (getattr(generator, "input_size", None) for generator in generators)
    return next(((size, size) for size in sizes if isinstance(size, int)), None)


def find_core(model: nn.Module) -> tuple[str, Any]:
    """Find the network inside a wrapper, such as a semi-supervised detector: prefix and module."""
    for name, module in model.named_modules():
        is_network = isinstance(getattr(module, "backbone", None), nn.Module)
        if is_network and hasattr(module, "extract_feat"):
            return f"{name}." if name else "", module
    return "", model


@torch.no_grad()
def run_parts(model: nn.Module, size: tuple[int, int]) -> Pass:
    """Run backbone and neck on an image, then each head on what they give, in eval mode.

    What needs data samples (the loss, transformers of detectors) is not run.
    """
    model.eval()
    prefix, core = find_core(model)
    device = next((parameter.device for parameter in model.parameters()), "cpu")
    images = torch.zeros(1, input_channels(core), *size, device=device)
    seen, running = Pass(size), ""

    def before(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal running
        running = name
        seen.shapes.setdefault(name, _shapes(args[0]) if args else [])

    def after(name: str, *ignored: Any) -> None:
        nonlocal running
        running = name.rpartition(".")[0]

    def attempt(part: str, call: Callable[[], Any]) -> Any:
        nonlocal running
        running = f"{prefix}{part}"
        try:
            return call()
        except Exception as error:  # whatever a model of any origin raises
            seen.failures.append((running, error))
            return None

    hooks = []
    for name, module in list(model.named_modules())[1:]:
        hooks.append(module.register_forward_pre_hook(partial(before, name)))
        hooks.append(module.register_forward_hook(partial(after, name)))
    features = attempt("backbone", lambda: core.extract_feat(images))
    seen.features = _shapes(features)
    for name, call in _consumers(core, features, device) if not seen.failures else ():
        attempt(name, call)
    for hook in hooks:
        hook.remove()
    return seen


def _shapes(value: Any) -> list[torch.Size]:
    items = value if isinstance(value, list | tuple) else (value,)
    return [item.shape for item in items if isinstance(item, Tensor)]


def _consumers(core: Any, features: Any, device: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """List the parts that take the maps of the neck, and how to run each on them."""
    for name in _HEADS:
        head: Any = getattr(core, name, None)
        heads = head if isinstance(head, nn.ModuleList) else [head]
        # Behind a transformer, a head takes its queries.
        if _takes_one(heads[0]) and not hasattr(core, "forward_transformer"):
            yield name, partial(_cascade, heads, features)
        decoder: Any = getattr(head, "pixel_decoder", None)
        if _takes_one(decoder):
            yield f"{name}.pixel_decoder", partial(decoder, features)
    for name, part, region in region_heads(getattr(core, "roi_head", None), device):
        if _takes_one(part[1]):
            yield f"roi_head.{name}", partial(part, region)


def _cascade(heads: Any, features: Any) -> None:
    """Run the heads of a segmenter, also those that take the output of the one before."""
    output = None
    for head in heads:
        if "prev_output" in inspect.signature(head.forward).parameters:
            output = head(features, output)
        elif _takes_one(head):  # not points, for one
            output = head(features)


def _takes_one(module: Any) -> bool:
    """Tell whether a module can be called with one argument."""
    found = inspect.signature(getattr(module, "forward", lambda: None)).parameters.values()
    return [each.default is each.empty for each in found if "*" not in str(each)].count(True) == 1
