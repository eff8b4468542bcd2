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

_HEADS = ("rpn_head", "bbox_head", "mask_head", "panoptic_head", "semantic_head", "head")


@dataclass
class Pass:
    """What one forward pass showed.

    Attributes:
        size: Height and width of the image in pixels.
        shapes: The shapes of the tensors that each module got the first time, by its name.
        ran: Names of the parts that ran to their end.
        features: The shapes behind backbone and neck.
        failures: For each part that raised an error, the names of the modules that were running,
            the part first, and the exception.
    """

    size: tuple[int, int]
    shapes: dict[str, list[torch.Size]] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    features: list[torch.Size] = field(default_factory=list)
    failures: list[tuple[list[str], Exception]] = field(default_factory=list)


def find_core(model: nn.Module) -> tuple[str, Any]:
    """Find the network inside a wrapper, such as a semi-supervised detector or a distillation.

    Returns:
        The prefix of its modules' names, empty for the model itself, and the module.
    """
    for name, module in model.named_modules():
        backbone = getattr(module, "backbone", None)
        if isinstance(backbone, nn.Module) and hasattr(module, "extract_feat"):
            return f"{name}." if name else "", module
    return "", model


@torch.no_grad()
def run_parts(model: nn.Module, size: tuple[int, int]) -> Pass:
    """Run backbone and neck on an image, then each head on what they give.

    Each head is run also if another one fails. What needs data samples (the loss, transformers of
    detectors) is not run.

    Args:
        model: A model of any toolbox, also on the meta device; it is set to eval mode.
        size: Height and width of the image in pixels.
    """
    model.eval()
    prefix, core = find_core(model)
    device = next((parameter.device for parameter in model.parameters()), "cpu")
    images = torch.zeros(1, input_channels(core), *size, device=device)
    seen = Pass(size)
    running: list[str] = []

    def before(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        running.append(name)
        seen.shapes.setdefault(name, _shapes(args[0]) if args else [])

    def after(name: str, *ignored: Any) -> None:
        while running and running.pop() != name:
            pass

    def attempt(part: str, call: Callable[[], Any]) -> Any:
        running[:] = [f"{prefix}{part}"]
        try:
            result = call()
        except Exception as error:  # whatever a model of any origin raises
            seen.failures.append((list(running), error))
            return None
        seen.ran.append(part)
        return result

    named = [(name, module) for name, module in model.named_modules() if name]
    hooks = [module.register_forward_pre_hook(partial(before, name)) for name, module in named]
    hooks += [module.register_forward_hook(partial(after, name)) for name, module in named]
    features = attempt("backbone and neck", lambda: core.extract_feat(images))
    if features is not None:
        seen.features = _shapes(features)
        for name, call in _consumers(core, features, device):
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
        # Behind a transformer, a head takes its queries.
        if _takes(head, 1) and not hasattr(core, "forward_transformer"):
            yield name, partial(head, features)
        decoder: Any = getattr(head, "pixel_decoder", None)
        if _takes(decoder, 1):
            yield f"{name}.pixel_decoder", partial(decoder, features)
    for name in ("decode_head", "auxiliary_head"):
        heads: Any = getattr(core, name, None)
        heads = heads if isinstance(heads, nn.ModuleList) else [heads]
        if _takes(heads[0], 1):
            yield name, partial(_cascade, heads, features)
    regions: Any = getattr(core, "roi_head", None)
    for kind in ("bbox", "mask"):
        heads = getattr(regions, f"{kind}_head", None)
        extractor: Any = getattr(regions, f"{kind}_roi_extractor", None)
        extractor = extractor or getattr(regions, "bbox_roi_extractor", None)
        extractor = extractor[0] if isinstance(extractor, nn.ModuleList) else extractor
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            if _takes(head, 1) and hasattr(extractor, "roi_layers"):
                shape = (2, extractor.out_channels, *extractor.roi_layers[0].output_size)
                shared = getattr(regions, "shared_head", None) or nn.Identity()
                maps = torch.zeros(shape, device=device)
                yield f"roi_head.{kind}_head", partial(nn.Sequential(shared, head), maps)


def _cascade(heads: Any, features: Any) -> None:
    """Run the heads of a cascade, each on the output of the one before it, too."""
    output = heads[0](features)
    for head in heads[1:]:
        output = head(features, output) if _takes(head, 2) else head(features)


def _takes(module: Any, arguments: int) -> bool:
    if not isinstance(module, nn.Module):
        return False
    found = inspect.signature(module.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return arguments == sum(each.default is each.empty and each.kind in kinds for each in found)
