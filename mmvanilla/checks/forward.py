"""Run a model on one image, part by part, and note which maps each part gets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmvanilla.apis.model import input_channels

_DENSE_HEADS = ("rpn_head", "bbox_head", "mask_head", "panoptic_head", "semantic_head")
_SEGMENTATION_HEADS = ("decode_head", "auxiliary_head")
_REGIONS = 2  # an RoI head's forward needs some


class Map(NamedTuple):
    """The shape of one feature map."""

    channels: int
    height: int
    width: int


class Failure(NamedTuple):
    """An error of one part.

    Attributes:
        part: Name of the part that was run, such as ``'bbox_head'`` or ``'backbone and neck'``.
        modules: Names of the modules that were running, from the part to the layer that failed.
        error: The exception.
    """

    part: str
    modules: tuple[str, ...]
    error: Exception


@dataclass
class Pass:
    """What one forward pass showed.

    Attributes:
        size: Height and width of the image in pixels.
        maps: The maps that each module got, by its name; of a module that ran several times, those
            of the first time.
        ran: Names of the parts that ran to their end.
        features: The maps behind backbone and neck.
        failures: The parts that raised an error.
    """

    size: tuple[int, int]
    maps: dict[str, tuple[Map, ...]] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    features: tuple[Map, ...] = ()
    failures: list[Failure] = field(default_factory=list)


def find_core(model: nn.Module) -> tuple[str, Any]:
    """Find the part of a model that has the backbone: itself, or the network inside a wrapper.

    Args:
        model: A model of any toolbox; a semi-supervised detector or a distillation is a wrapper.

    Returns:
        The prefix of its modules' names, empty for the model itself, and the module.
    """
    for name, module in model.named_modules():
        if isinstance(getattr(module, "backbone", None), nn.Module) and hasattr(
            module, "extract_feat"
        ):
            return f"{name}." if name else "", module
    return "", model


@torch.no_grad()
def run_parts(model: nn.Module, size: tuple[int, int], batch: int = 1) -> Pass:
    """Run backbone and neck on an image, then each head on what they give.

    Each head is run also if another one fails. What needs data samples (the loss, transformers of
    detectors) is not run.

    Args:
        model: A model of any toolbox, also on the meta device.
        size: Height and width of the image in pixels.
        batch: Number of images. Default: 1.
    """
    prefix, core = find_core(model)
    seen = Pass(size)
    parameter = next(iter(model.parameters()), None)
    device = "cpu" if parameter is None else parameter.device
    images = torch.zeros(batch, input_channels(core), *size, device=device)
    with _recording(model, seen) as attempt:
        features = attempt(f"{prefix}backbone and neck", lambda: core.extract_feat(images))
        if features is None:
            return seen
        levels = tuple(features) if isinstance(features, list | tuple) else (features,)
        seen.features = _maps_of(levels)
        for name, call in _consumers(core, features, levels, batch, device):
            attempt(f"{prefix}{name}", call)
    return seen


@torch.no_grad()
def run_whole(model: nn.Module, size: tuple[int, int]) -> Pass:
    """Let a detector predict on one image, with everything between its heads.

    Args:
        model: A detector with weights, random ones too.
        size: Height and width of the image in pixels.
    """
    from mmdet.structures import DetDataSample

    prefix, core = find_core(model)
    seen = Pass(size)
    sample = DetDataSample()
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size)
    sample.set_metainfo(dict(meta, scale_factor=(1.0, 1.0), img_id=0, img_path="image.png"))
    proposals: Any = getattr(core, "rpn_head", None)
    if hasattr(proposals, "init_proposal_bboxes"):
        proposals.init_weights()  # boxes that are weights: random ones have no size
    images = torch.rand(1, input_channels(core), *size)
    with _recording(model, seen) as attempt:
        attempt(f"{prefix}whole model", core.predict, images, [sample])
    return seen


@contextmanager
def _recording(model: nn.Module, seen: Pass) -> Iterator[Callable[..., Any]]:
    """Note the maps that modules get, and run functions so that the failing module is known."""
    running: list[str] = []
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            running.append(name)
            maps = _maps_of(args[0]) if args else ()
            if maps:
                seen.maps.setdefault(name, maps)

        def after(*ignored: Any) -> None:
            while running and running.pop() != name:
                pass

        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(after))

    def attempt(part: str, call: Callable[..., Any], *args: Any) -> Any:
        running.clear()
        try:
            result = call(*args)
        except Exception as error:  # whatever a model of any origin raises
            seen.failures.append(Failure(part, tuple(running), error))
            return None
        seen.ran.append(part)
        return result

    for name, module in model.named_modules():
        if name:
            watch(name, module)
    try:
        yield attempt
    finally:
        for handle in handles:
            handle.remove()


def _maps_of(value: Any) -> tuple[Map, ...]:
    items = value if isinstance(value, list | tuple) else (value,)
    if not items or not all(isinstance(item, Tensor) and item.dim() == 4 for item in items):
        return ()
    return tuple(Map(*item.shape[1:]) for item in items)


def _consumers(
    core: Any, features: Any, levels: tuple[Tensor, ...], batch: int, device: Any
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """List the parts that take the maps of the neck, and how to run each on them."""
    for name in _DENSE_HEADS:
        head = getattr(core, name, None)
        if isinstance(head, nn.Module):
            # Behind a transformer, a head takes its queries.
            if _takes_only_maps(head) and not hasattr(core, "forward_transformer"):
                yield name, partial(head, features)
            decoder = getattr(head, "pixel_decoder", None)
            if isinstance(decoder, nn.Module) and _takes_only_maps(decoder):
                yield f"{name}.pixel_decoder", partial(decoder, features)
    yield from _region_heads(getattr(core, "roi_head", None), batch, device)
    for name in _SEGMENTATION_HEADS:
        yield from _segmentation_heads(name, getattr(core, name, None), features)
    head = getattr(core, "head", None)
    if isinstance(head, nn.Module) and _takes_only_maps(head):
        yield "head", partial(head, features)


def _region_heads(
    roi_head: Any, batch: int, device: Any
) -> Iterator[tuple[str, Callable[[], Any]]]:
    shared = getattr(roi_head, "shared_head", None) or nn.Identity()
    for kind in ("bbox", "mask"):
        heads = getattr(roi_head, f"{kind}_head", None)
        extractors = getattr(roi_head, f"{kind}_roi_extractor", None)
        if not isinstance(extractors, nn.Module):  # masks may share that of the boxes
            extractors = getattr(roi_head, "bbox_roi_extractor", None)
        if not isinstance(heads, nn.Module) or not isinstance(extractors, nn.Module):
            continue
        is_list = isinstance(heads, nn.ModuleList)
        for index, head in enumerate(heads if isinstance(heads, nn.ModuleList) else [heads]):
            extractor: Any = extractors
            if isinstance(extractors, nn.ModuleList):
                extractor = extractors[min(index, len(extractors) - 1)]
            if not _takes_only_maps(head) or not hasattr(extractor, "roi_layers"):
                continue
            size = extractor.roi_layers[0].output_size
            regions = torch.zeros(_REGIONS * batch, extractor.out_channels, *size, device=device)
            name = f"roi_head.{kind}_head" + (f".{index}" if is_list else "")
            yield name, partial(_in_turn, shared, head, regions)


def _in_turn(first: nn.Module, second: nn.Module, value: Any) -> Any:
    return second(first(value))


def _segmentation_heads(
    name: str, heads: Any, features: Any
) -> Iterator[tuple[str, Callable[[], Any]]]:
    if not isinstance(heads, nn.Module):
        return
    if not isinstance(heads, nn.ModuleList):
        if _takes_only_maps(heads):
            yield name, partial(heads, features)
        return
    previous: list[Any] = [None]  # a head of a cascade takes the output of the one before it
    for index, head in enumerate(heads):
        names = _required(head)

        def call(head: nn.Module = head, count: int = len(names)) -> Any:
            previous[0] = head(features) if count == 1 else head(features, previous[0])
            return previous[0]

        if names[:1] == ["inputs"] and len(names) <= 2:
            yield f"{name}.{index}", call


def _required(module: nn.Module) -> list[str]:
    return [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]


def _takes_only_maps(module: nn.Module) -> bool:
    return len(_required(module)) == 1
