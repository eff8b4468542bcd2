"""Translate the authors' names of weights into ours, from state dict to state dict.

The layouts are those of ``models/vanillanet.py`` in the authors' repository: the training form, and
the deploy form that its ``switch_to_deploy`` gives. Their detectors have the same names below
``backbone.``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor

from mmvanilla.checkpoints.weights import check_weights

CLASSIFIER, BACKBONE, DETECTOR = KINDS = ("classifier", "backbone", "detector")
_BACKBONE = "backbone."
_HEAD = "head."
_FIRST = ".first.conv.weight"
_BN = ("weight", "bias", "running_mean", "running_var")
_COUNTER = "num_batches_tracked"
_NAMES_SHOWN = 8


@dataclass(frozen=True)
class Converted:
    """Weights under our names, and the kind of network that they belong to.

    Args:
        state_dict: Keys below ``backbone.`` and ``head.`` (classifier), bare (backbone), or below
            ``backbone.`` beside everything else (detector).
        kind: Kind of the network, an entry of :data:`KINDS`.
        dims: Channels of the stem, then of each block.
        act_num: n of the series activation.
        num_classes: Number of classes of a classifier, K; None for other networks.
        deploy: True if the weights are fused.
    """

    state_dict: dict[str, Tensor]
    kind: str
    dims: tuple[int, ...]
    act_num: int
    num_classes: int | None
    deploy: bool


def convert_authors(
    state_dict: Mapping[str, Any], target: str | None = None, act_lambda: float = 1.0
) -> Converted:
    """Give the authors' weights our names, after every key and every shape has been checked.

    Args:
        state_dict: The weights of a classifier or backbone in training or deploy form, or of a
            detector (``backbone.`` and other keys), with or without the prefix ``module.`` of a
            distributed wrapper.
        target: Kind of network to make weights for, an entry of :data:`KINDS`. None: the kind that
            they are of. Weights of a classifier or detector can also become those of a backbone.
        act_lambda: The λ at which the training form was saved. Default: 1, as after training.

    Raises:
        ValueError: The weights are of another network, have additional or missing keys or other
            shapes, hold NaN or inf, or cannot become those of ``target``.
    """
    given = {str(key).removeprefix("module."): value for key, value in state_dict.items()}
    wrong = [key for key, value in given.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ValueError(f"expected a state dict of tensors; not tensors: {_listed(wrong)}")
    others = {key: value for key, value in given.items() if not key.startswith(_BACKBONE)}
    theirs = {key.removeprefix(_BACKBONE): given[key] for key in given if key not in others}
    if theirs:
        kind = DETECTOR if others else BACKBONE
    else:
        theirs, others = others, {}
        kind = CLASSIFIER if any(key.startswith("cls") for key in theirs) else BACKBONE
    target = kind if target is None else target
    if target not in KINDS:
        raise ValueError(f"target must be one of {', '.join(KINDS)}, found {target!r}")
    if target not in (kind, BACKBONE):
        raise ValueError(
            f"these are the weights of a {kind}, without the parts that a {target} has besides the "
            f"backbone; take target {kind} or {BACKBONE}"
        )

    deploy, dims, act_num, num_classes, in_channels = _read_shapes(theirs, kind)
    layout = authors_layout(dims, act_num, num_classes, deploy, in_channels)
    _check_accounted(theirs, layout)
    check_weights({**theirs, **others}, "the file")

    converted = {}
    for key, (ours, _) in layout.items():
        is_head = ours.startswith(_HEAD)
        if key not in theirs or (is_head and target == BACKBONE):
            continue
        name = ours if is_head or target == BACKBONE else _BACKBONE + ours
        converted[name] = theirs[key]
        if name.endswith(_FIRST):
            # Each pair of ours has a λ, which the authors do not save in the state dict.
            name = name.removesuffix(_FIRST) + ".act.act_lambda"
            converted[name] = torch.tensor(act_lambda, dtype=torch.float64)
    if target == DETECTOR:
        converted.update(others)
    num_classes = num_classes if target == CLASSIFIER else None
    return Converted(converted, target, dims, act_num, num_classes, deploy)


def authors_layout(
    dims: tuple[int, ...],
    act_num: int = 3,
    num_classes: int | None = None,
    deploy: bool = False,
    in_channels: int = 3,
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """List every key of the authors' model, with our name for it and its shape.

    Args:
        dims: Channels of the stem, then of each block.
        act_num: n of the series activation.
        num_classes: Number of classes, K; None for a model without the classifier.
        deploy: Whether to list the keys of their fused form. Default: False.
        in_channels: Number of channels of the image. Default: 3.

    Returns:
        Our key and the shape for each of their keys. Our keys of the classifier have the prefix
        ``head.``, those of the backbone have none.
    """
    layout: dict[str, tuple[str, tuple[int, ...]]] = {}

    def conv(theirs: str, ours: str, *shape: int, bias: bool = True) -> None:
        layout[f"{theirs}.weight"] = (f"{ours}.weight", shape)
        if bias:
            layout[f"{theirs}.bias"] = (f"{ours}.bias", shape[:1])

    def norm(theirs: str, ours: str, channels: int) -> None:
        layout.update({f"{theirs}.{name}": (f"{ours}.{name}", (channels,)) for name in _BN})
        layout[f"{theirs}.{_COUNTER}"] = (f"{ours}.{_COUNTER}", ())

    def activation(theirs: str, ours: str, channels: int) -> None:
        kernel = (channels, 1, 2 * act_num + 1, 2 * act_num + 1)
        if deploy:
            conv(theirs, f"{ours}.conv", *kernel)
        else:
            conv(theirs, f"{ours}.conv.conv", *kernel, bias=False)
            norm(f"{theirs}.bn", f"{ours}.conv.norm", channels)

    def pair(first: str, second: str, ours: str, mid: int, *shape: int) -> None:
        conv(f"{first}.0", f"{ours}.first.conv", mid, *shape[1:])
        norm(f"{first}.1", f"{ours}.first.norm", mid)
        conv(f"{second}.0", f"{ours}.second.conv", shape[0], mid, 1, 1)
        norm(f"{second}.1", f"{ours}.second.norm", shape[0])

    stem_shape = (dims[0], in_channels, 4, 4)
    if deploy:
        conv("stem.0", "stem.conv", *stem_shape)
        activation("stem.1", "stem.act", dims[0])
    else:
        pair("stem1", "stem2", "stem.conv", dims[0], *stem_shape)
        activation("stem2.2", "stem.act", dims[0])
    for block in range(len(dims) - 1):
        theirs, ours = f"stages.{block}", f"blocks.{block}"
        shape = (dims[block + 1], dims[block], 1, 1)
        if deploy:
            conv(f"{theirs}.conv", f"{ours}.conv", *shape)
        else:
            pair(f"{theirs}.conv1", f"{theirs}.conv2", f"{ours}.conv", dims[block], *shape)
        activation(f"{theirs}.act", f"{ours}.act", dims[block + 1])
    if num_classes is not None and deploy:
        conv("cls.2", "head.conv", num_classes, dims[-1], 1, 1)
    elif num_classes is not None:
        conv("cls1.2", "head.conv.first.conv", num_classes, dims[-1], 1, 1)
        norm("cls1.3", "head.conv.first.norm", num_classes)
        conv("cls2.0", "head.conv.second.conv", num_classes, num_classes, 1, 1)
    return layout


def _read_shapes(
    theirs: Mapping[str, Tensor], kind: str
) -> tuple[bool, tuple[int, ...], int, int | None, int]:
    """Read the form (True for deploy), dims, act_num, the classes and the image's channels."""
    deploy = "stem.1.weight" in theirs
    if not deploy and "stem2.2.weight" not in theirs:
        if any(key.startswith(("stem.conv.", "blocks.0.")) for key in theirs):
            raise ValueError("these weights already have mmvanilla's names: use the file as it is")
        raise ValueError(
            "these are not VanillaNet weights of the authors: expected stem2.2.weight (training "
            f"form) or stem.1.weight (deploy form), found {_listed(theirs) or 'nothing'}"
        )

    def shape(key: str) -> torch.Size:
        if key not in theirs or theirs[key].dim() != 4:
            found = f"has shape {tuple(theirs[key].shape)}" if key in theirs else "is missing"
            raise ValueError(f"{key} {found}; expected the 4 dimensions of a convolution's weight")
        return theirs[key].shape

    kernels = (f"stages.{block}.act.weight" for block in count())
    blocks = [shape(key)[0] for key in takewhile(theirs.__contains__, kernels)]
    stem = shape("stem.1.weight" if deploy else "stem2.2.weight")
    classifier = "cls.2.weight" if deploy else "cls2.0.weight"
    classes = shape(classifier)[0] if kind == CLASSIFIER else None
    in_channels = shape("stem.0.weight" if deploy else "stem1.0.weight")[1]
    return deploy, (stem[0], *blocks), stem[-1] // 2, classes, in_channels


def _check_accounted(
    theirs: Mapping[str, Tensor], layout: Mapping[str, tuple[str, tuple[int, ...]]]
) -> None:
    misshaped = [
        f"{key} {tuple(theirs[key].shape)} instead of {shape}"
        for key, (_, shape) in layout.items()
        if key in theirs and tuple(theirs[key].shape) != shape
    ]
    problems = {
        "missing": [key for key in layout if key not in theirs and not key.endswith(_COUNTER)],
        "unexpected": [key for key in theirs if key not in layout],
        "of another shape": misshaped,
    }
    told = [f"{len(keys)} {what}: {_listed(keys)}" for what, keys in problems.items() if keys]
    if told:
        raise ValueError(
            f"the weights are not those of a VanillaNet ({'; '.join(told)}); expected the file as "
            "the authors' code saved it, so fetch it again"
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
