"""Compare all outputs of two forms of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmvanilla.apis.model import TensorModel, input_channels
from mmvanilla.models.fusion import FusableLayer, conv_geometry
from mmvanilla.utils.numerics import largest, relative_difference


class _Call(NamedTuple):
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


@torch.no_grad()
def largest_difference(model: nn.Module, other: nn.Module, size: tuple[int, int]) -> float:
    """Run two models on the same two random images and compare every output.

    Both models are on the same device and have the same type; the images are moved to them.

    This compares the outputs of :class:`~mmvanilla.apis.model.TensorModel` (logits, or the levels
    of a neck) and those of each part of the model that has fusable layers: backbone, neck and
    heads. Each part of ``other`` gets the inputs of that part of ``model``, so that the heads of a
    detector are compared on the same proposals.

    Args:
        model: A model in eval mode.
        other: Another form of this model, in eval mode.
        size: Height and width in pixels.

    Returns:
        The largest difference of any output, relative to that output's largest value; NaN if
        either of the models gives NaN.
    """
    inputs = torch.randn(
        2, input_channels(model), *size, generator=torch.Generator().manual_seed(0)
    )
    inputs = inputs.to(next(model.parameters(), inputs))
    output, calls = _run_and_record(model, inputs)
    pairs = [(output, TensorModel(other)(inputs))]
    parts = dict(other.named_modules(remove_duplicate=False))
    for call in calls:
        found = parts[call.name](*_copied(call.args), **_copied(call.kwargs))
        pairs.append((call.output, found))
    return largest(
        relative_difference(*tensors)
        for expected, found in pairs
        for tensors in zip(_tensors(expected), _tensors(found), strict=True)
    )


def first_mismatch(model: nn.Module, other: nn.Module) -> str | None:
    """Find a difference between two models of the same form, without running them.

    This compares the names and classes of all modules, the geometry of the convolutions, and every
    number of the state dicts.

    Returns:
        The first difference in words; None if there is none.
    """
    parts, others = dict(model.named_modules()), dict(other.named_modules())
    for name in [*parts, *others]:
        part, twin = parts.get(name), others.get(name)
        if part.__class__ is not twin.__class__:
            return f"{name} is a {type(twin).__name__} instead of a {type(part).__name__}"
        if isinstance(part, nn.Conv2d) and isinstance(twin, nn.Conv2d):
            expected, found = conv_geometry(part), conv_geometry(twin)
            for key in expected:
                if expected[key] != found[key]:
                    return f"{key} of {name} is {found[key]} instead of {expected[key]}"
    weights, found_weights = model.state_dict(), other.state_dict()
    for name in [*weights, *found_weights]:
        if name not in weights or name not in found_weights:
            return f"{name} is {'missing' if name in weights else 'left over'}"
        if not torch.equal(weights[name].nan_to_num(), found_weights[name].nan_to_num()):
            return f"{name} has other values"
    return None


def _predict_as_detector(model: nn.Module, inputs: Tensor) -> bool:
    """Run a detector with its heads; False if it is not one, or needs more than images."""
    if not any(base.__module__.startswith("mmdet.") for base in type(model).__mro__):
        return False
    from mmdet.structures import DetDataSample

    height, width = inputs.shape[-2:]
    metainfo = dict.fromkeys(
        ("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), (height, width)
    )
    samples = [DetDataSample(metainfo=dict(metainfo, scale_factor=(1.0, 1.0))) for _ in inputs]
    try:
        model(inputs, samples, mode="predict")
    except Exception:
        # It needs captions, tracks, …: then only its features are compared, and first_mismatch()
        # checks its heads.
        return False
    return True


def _run_and_record(model: nn.Module, inputs: Tensor) -> tuple[Any, list[_Call]]:
    """Run as much of a model as is possible with images alone.

    Returns:
        The outputs of :class:`TensorModel`, and the outermost calls of parts with fusable layers.
    """
    calls: list[_Call] = []
    given: list[Any] = []  # arguments of the running parts, the outermost first

    def before(_module: nn.Module, args: Any, kwargs: Any) -> None:
        given.append(None if given else _copied((args, kwargs)))

    def after(name: str) -> Callable[..., None]:
        def record(_module: nn.Module, _args: Any, output: Any) -> None:
            arguments = given.pop()
            if not given:
                args, kwargs = arguments
                calls.append(_Call(name, args, kwargs, _copied(output)))

        return record

    handles = []
    for name, module in model.named_modules():
        holds_layers = any(isinstance(part, FusableLayer) for part in module.modules())
        if name and holds_layers and not isinstance(module, FusableLayer):
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after(name)))
    try:
        output = TensorModel(model)(inputs)
        features_alone = len(calls)
        if _predict_as_detector(model, inputs):
            del calls[:features_alone]  # recorded again, with the heads
        else:
            del calls[features_alone:]
        return output, calls
    finally:
        for handle in handles:
            handle.remove()


def _copied(value: Any) -> Any:
    # Layers may change their inputs in place.
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_copied(item) for item in value)
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return value


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for item in output:
            yield from _tensors(item)
