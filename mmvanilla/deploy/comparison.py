"""Compare two forms of a model: what they compute, what they predict, and how they are built."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmvanilla.apis.config import tested_dataset
from mmvanilla.apis.model import TensorModel, input_channels
from mmvanilla.models.fusion import FusableLayer
from mmvanilla.utils.numerics import largest, relative_difference

Size = tuple[int, int]

_DATA_SAMPLES = {"mmdet": "DetDataSample", "mmseg": "SegDataSample", "mmpretrain": "DataSample"}
_FEATURES, _HEADS, _PREDICTIONS = "features or logits", "outputs of the heads", "predictions"
_LARGEST_SIZE, _DEFAULT_SIZE = 512, 224
_ROUNDING = 1e-6  # of a weight in float32


def typical_size(cfg: Config) -> Size:
    """Return a height and width, at most 512, at which a config tests its model; else 224×224."""
    side = _DEFAULT_SIZE
    for step in tested_dataset(cfg).get("pipeline", ()):
        found = step.get("crop_size") or step.get("scale") or 0
        found = min(found) if isinstance(found, list | tuple) else found
        side = min(found, _LARGEST_SIZE) if found > 0 else side
    return side, side


@torch.no_grad()
def compare_forms(
    model: nn.Module, other: nn.Module, sizes: Sequence[Size], tolerance: float
) -> tuple[float, str]:
    """Run two forms of a model, in eval mode, on the same random images of sizes in pixels.

    Compared are features or logits and, of models of the three toolboxes, the heads of detectors
    (``mode="tensor"``) and the predictions. Rounding can change which boxes a detector keeps: where
    heads or predictions differ, the fused layers, and only these, compute once more in float64.

    Returns:
        The largest relative difference, and what was compared and what was not, in words.

    Raises:
        RuntimeError: An output differs by more than ``tolerance`` (relative to its maximum), or in
            number or labels of detections; or ``model`` does not take a size, or ``other`` fails.
    """
    differences, compared, skipped = [], [], {}
    for size in sizes:
        names = []
        for name, run in _runs(model, size).items():
            try:
                expected = run(model)
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                if name == _FEATURES:
                    raise RuntimeError(
                        f"the trained model does not take an image of {size[0]}x{size[1]} "
                        f"({reason}); give the size of its images by --sizes H W"
                    ) from error
                skipped[name] = reason
                continue
            try:
                difference = _difference(expected, run(other))
                if not difference <= tolerance and name != _FEATURES:
                    with suppress(Exception):  # heads of another type stay as they were found
                        difference = _difference(*map(run, _in_float64(model, other)))
            except Exception as error:
                raise RuntimeError(
                    f"the trained model gives {name}, but the fused one fails "
                    f"({type(error).__name__}: {error}); nothing was written"
                ) from error
            if not difference <= tolerance:  # written with `not` so that NaN fails
                text = f"by {difference:.2g} of their maximum, more than {tolerance:g}"
                text = "in number, shape or labels" if math.isinf(difference) else text
                raise RuntimeError(
                    f"{name} of the fused model differ at {size[0]}x{size[1]} {text}; nothing was "
                    "written"
                )
            differences.append(difference)
            names.append(name)
        compared.append(f"{', '.join(names)} at {size[0]}x{size[1]}")
    if _data_sample(model, sizes[0]) is None:
        skipped[_PREDICTIONS] = f"{type(model).__name__} is of none of the three toolboxes"
    words = [f"compared: {'; '.join(compared)}"]
    words += [f"NOT compared: {name} ({reason})" for name, reason in skipped.items()]
    return largest(differences), "\n".join(words)


def first_mismatch(model: nn.Module, other: nn.Module) -> str | None:
    """Return in words how two models differ in classes, geometry or weights; else None."""
    parts, others = dict(model.named_modules()), dict(other.named_modules())
    for name in {**parts, **others}:
        part, twin = parts.get(name), others.get(name)
        if type(part) is not type(twin):
            return f"{name} is a {type(twin).__name__} instead of a {type(part).__name__}"
        if isinstance(part, nn.Conv2d) and str(part) != str(twin):
            return f"{name} is {twin} instead of {part}"
    weights, found = model.state_dict(), other.state_dict()
    changed = [name for name in weights if not torch.equal(weights[name], found[name])]
    return f"{changed[0]} has other values" if changed else None


def _runs(model: nn.Module, size: Size) -> dict[str, Callable[[Any], Any]]:
    """Return functions of a form of the model that give its outputs, by their names."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (input_channels(model), *size), generator=generator)
    sample = _data_sample(model, size)

    def batch(form: Any) -> tuple[Tensor, Any]:
        first = next(form.parameters())
        if not hasattr(form, "data_preprocessor"):
            return (image[None].to(first) - 127.5) / 64, None
        data = dict(inputs=[image.float()], data_samples=sample and [copy.deepcopy(sample)])
        data = form.data_preprocessor(data, False)
        inputs = data["inputs"]
        inputs = torch.stack(list(inputs)) if isinstance(inputs, list | tuple) else inputs
        return inputs.to(first), data["data_samples"]

    def run(mode: str, form: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of detectors that begin with noise
            return form(*batch(form), mode=mode)

    runs: dict[str, Any] = {_FEATURES: lambda form: TensorModel(form)(batch(form)[0])}
    if type(sample).__name__ == "DetDataSample":
        runs[_HEADS] = partial(run, "tensor")
    if sample is not None:
        runs[_PREDICTIONS] = partial(run, "predict")
    return runs


def _data_sample(model: nn.Module, size: Size) -> Any:
    """Make what a toolbox's pipeline makes for an image; None for a model of no toolbox."""
    toolboxes = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    shapes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), size)
    metainfo = dict(shapes, scale_factor=(1.0, 1.0), img_id=0, img_path="", flip=False)
    for toolbox, name in _DATA_SAMPLES.items():
        if toolbox in toolboxes:
            return getattr(import_module(f"{toolbox}.structures"), name)(metainfo=metainfo)
    return None


def _in_float64(model: nn.Module, other: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Copy both forms so that layers fused rightly compute in float64, and give float32."""
    model, other = copy.deepcopy(model), copy.deepcopy(other)
    inside: set[nn.Module] = set()
    for name, layer in model.named_modules():
        if isinstance(layer, FusableLayer) and layer not in inside:
            inside.update(layer.modules())
            exact, conv = layer.double().fuse().state_dict(), other.get_submodule(name).double()
            rounded = conv.state_dict()
            if all(relative_difference(exact[key], rounded[key]) < _ROUNDING for key in exact):
                conv.load_state_dict(exact)
            for module in (layer, conv):
                module.register_forward_pre_hook(lambda _, args: tuple(x.double() for x in args))
                module.register_forward_hook(lambda _, args, output: output.float())
    return model, other


def _difference(expected: Any, found: Any) -> float:
    differences = [0.0]
    for one, other in zip_longest(_tensors(expected), _tensors(found)):
        if one is None or other is None or one.shape != other.shape:
            return math.inf
        if not one.is_floating_point() and not torch.equal(one, other):
            return math.inf
        differences.append(relative_difference(one.double(), other.double()))
    return largest(differences)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor | np.ndarray):
        yield torch.as_tensor(output)
    elif isinstance(output, Mapping | BaseDataElement):
        yield from _tensors([item for _, item in sorted(output.items())])
    elif isinstance(output, list | tuple):
        for item in output:
            yield from _tensors(item)
