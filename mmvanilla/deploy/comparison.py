"""Compare two forms of a model: what they compute, what they predict, and how they are built."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmvanilla.apis.model import TensorModel, input_channels
from mmvanilla.models.fusion import FusableLayer, conv_geometry
from mmvanilla.utils.numerics import largest, relative_difference

FEATURES, HEADS, PREDICTIONS = "features or logits", "outputs of the heads", "predictions"
_DATA_SAMPLES = {"mmdet": "DetDataSample", "mmseg": "SegDataSample", "mmpretrain": "DataSample"}
_LARGEST_SIZE, _DEFAULT_SIZE = 512, 224
_ROUNDING = 1e-6  # of a weight in float32


class Comparison(NamedTuple):
    """How far two forms of a model are apart.

    Attributes:
        differences: For each kind of output, the largest difference relative to the output's
            maximum; infinity if labels or the number of detections differ, NaN if a NaN is there.
        skipped: For each kind that the first model could not compute, the reason.
    """

    differences: dict[str, float]
    skipped: dict[str, str]


def typical_size(cfg: Config) -> tuple[int, int]:
    """Return a height and width, at most 512 pixels, at which a config tests its model.

    Args:
        cfg: Config of a model of any kind. Without a size in its test pipeline: 224×224.
    """
    dataset = cfg.get("test_dataloader", {}).get("dataset", {})
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    sizes = [
        step[key]
        for step in dataset.get("pipeline", ())
        for key in ("scale", "crop_size", "img_scale", "size")
        if step.get(key)
    ]
    last = sizes[-1] if sizes else _DEFAULT_SIZE
    side = min(last) if isinstance(last, list | tuple) else last
    side = min(side, _LARGEST_SIZE) if side > 0 else _DEFAULT_SIZE
    return side, side


@torch.no_grad()
def compare_forms(
    model: nn.Module, other: nn.Module, size: tuple[int, int], tolerance: float
) -> Comparison:
    """Run two forms of a model on the same random image, as testing runs them.

    The image goes through each model's data preprocessor. Compared are the outputs of
    :class:`~mmvanilla.apis.model.TensorModel`, and of models of the three toolboxes the
    predictions (``mode="predict"``) and the heads of detectors (``mode="tensor"``), too.

    Rounding can change which boxes a detector keeps, and thus everything behind. So where heads or
    predictions differ, they are computed once more with the layers that are to be fused, and only
    these, in float64: then the two forms are equal to the last digits, if the fusing is right.

    Args:
        model: A model in eval mode.
        other: Another form of this model, in eval mode, on the same device and of the same type.
        size: Height and width in pixels.
        tolerance: Largest difference that counts as rounding.

    Raises:
        RuntimeError: ``other`` cannot compute what ``model`` can.
    """
    exact: tuple[nn.Module, nn.Module] | None = None
    result = Comparison({}, {})
    for name, run in _runs(model, size).items():
        try:
            expected = run(model)
        except Exception as error:
            result.skipped[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        try:
            difference = _difference(expected, run(other))
            if not difference <= tolerance and name != FEATURES:
                exact = exact or _in_float64(model, other)
                difference = _difference(run(exact[0]), run(exact[1]))
        except Exception as error:
            raise RuntimeError(
                f"the trained model gives {name}, but the fused one fails "
                f"({type(error).__name__}: {error}); nothing was written"
            ) from error
        result.differences[name] = difference
    if PREDICTIONS not in result.differences:
        result.skipped.setdefault(
            PREDICTIONS, f"{type(model).__name__} is of none of the three toolboxes"
        )
    return result


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


def _runs(model: nn.Module, size: tuple[int, int]) -> dict[str, Callable[[Any], Any]]:
    """Return the functions of a model that give its outputs, by their names."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (input_channels(model), *size), generator=generator)
    sample = _data_sample(model, size)

    def batch(form: Any) -> tuple[Tensor, Any]:
        first = next(form.parameters())
        if not hasattr(form, "data_preprocessor"):
            return (image[None].to(first) - 127.5) / 64, None
        samples = None if sample is None else [copy.deepcopy(sample)]
        data = dict(inputs=[image.float()], data_samples=samples)
        data = form.data_preprocessor(data, False)
        inputs = data["inputs"]
        inputs = torch.stack(list(inputs)) if isinstance(inputs, list | tuple) else inputs
        return inputs.to(first), data["data_samples"]

    def in_mode(mode: str) -> Callable[[Any], Any]:
        def run(form: Any) -> Any:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # of detectors that begin with noise
                return form(*batch(form), mode=mode)

        return run

    runs: dict[str, Callable[[Any], Any]] = {}
    runs[FEATURES] = lambda form: TensorModel(form)(batch(form)[0])
    if type(sample).__name__ == "DetDataSample":
        runs[HEADS] = in_mode("tensor")
    if sample is not None:
        runs[PREDICTIONS] = in_mode("predict")
    return runs


def _data_sample(model: nn.Module, size: tuple[int, int]) -> Any:
    """Make what a toolbox's pipeline makes for an image; None for a model of no toolbox."""
    toolboxes = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    shapes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), size)
    metainfo = dict(shapes, scale_factor=(1.0, 1.0), img_id=0, img_path="", flip=False)
    for toolbox, name in _DATA_SAMPLES.items():
        if toolbox in toolboxes:
            return getattr(import_module(f"{toolbox}.structures"), name)(metainfo=metainfo)
    return None


def _in_float64(model: nn.Module, other: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Copy both forms so that their fused layers compute in float64, and give what they gave.

    A convolution of ``other`` whose weights are not those of the fused layer stays as it is.
    """
    model, other = copy.deepcopy(model), copy.deepcopy(other)
    inside: set[nn.Module] = set()
    for name, layer in model.named_modules():
        if isinstance(layer, FusableLayer) and layer not in inside:
            inside.update(layer.modules())
            conv = other.get_submodule(name)
            weights = layer.double().fuse().state_dict()
            if all(
                relative_difference(weights[key], value) < _ROUNDING
                for key, value in conv.state_dict().items()
            ):
                conv.double().load_state_dict(weights)
            for module in (layer, conv):
                kind = next(module.parameters()).dtype
                module.register_forward_pre_hook(_casting_to(kind))
                module.register_forward_hook(lambda _, args, output: output.float())
    return model, other


def _casting_to(kind: torch.dtype) -> Callable[..., Any]:
    return lambda _, args: tuple(tensor.to(kind) for tensor in args)


def _difference(expected: Any, found: Any) -> float:
    tensors, twins = list(_tensors(expected)), list(_tensors(found))
    if [tensor.shape for tensor in tensors] != [twin.shape for twin in twins]:
        return math.inf
    return largest([0.0, *map(_tensor_difference, tensors, twins)])


def _tensor_difference(expected: Tensor, found: Tensor) -> float:
    if expected.is_floating_point():
        return relative_difference(expected, found)
    return 0.0 if torch.equal(expected, found) else math.inf


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor | np.ndarray):
        yield torch.as_tensor(output)
    elif isinstance(output, Mapping | BaseDataElement):
        for _, item in sorted(output.items()):
            yield from _tensors(item)
    elif isinstance(output, list | tuple):
        for item in output:
            yield from _tensors(item)
