"""Run a model on one image, part by part, and note which maps each part gets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.apis.model import input_channels

_HEADS = [f"{kind}_head" for kind in ("rpn", "bbox", "mask", "panoptic", "semantic", "decode")]
_HEADS += ["auxiliary_head", "head"]


@dataclass
class Pass:
    """What one forward pass of an image of some height and width showed.

    ``shapes`` are those of the tensors that each module got, by its name, and ``features`` those
    behind backbone and neck. ``failures`` are modules in which a part ended, with the exception.
    """

    size: tuple[int, int]
    shapes: dict[str, list[torch.Size]] = field(default_factory=dict)
    features: list[torch.Size] = field(default_factory=list)
    failures: list[tuple[str, Exception]] = field(default_factory=list)


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

    Each head is run also if another one fails. What needs data samples (the loss, transformers of
    detectors) is not run. The model may be on the meta device.
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
    regions: Any = getattr(core, "roi_head", None)
    for kind in ("bbox", "mask"):
        head = getattr(regions, f"{kind}_head", None)
        extractor: Any = getattr(regions, f"{kind}_roi_extractor", None)
        extractor = extractor or getattr(regions, "bbox_roi_extractor", None)
        extractor = extractor[0] if isinstance(extractor, nn.ModuleList) else extractor
        for each in head if isinstance(head, nn.ModuleList) else [head]:
            if _takes_one(each) and hasattr(extractor, "roi_layers"):
                shape = (2, extractor.out_channels, *extractor.roi_layers[0].output_size)
                shared = getattr(regions, "shared_head", None) or nn.Identity()
                maps = torch.zeros(shape, device=device)
                yield f"roi_head.{kind}_head", partial(nn.Sequential(shared, each), maps)


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
