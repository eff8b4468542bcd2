"""Translate the authors' names of weights into ours, from state dict to state dict.

The names are those of ``models/vanillanet.py`` in the authors' repository, in training form and
after its ``switch_to_deploy``. Their detectors have them below ``backbone.``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.checkpoints.reading import check_weights
from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.vanillanet import VanillaNet

CLASSIFIER, BACKBONE, DETECTOR = "classifier", "backbone", "detector"
_BACKBONE = "backbone."
_HEAD = "head."
_FIRST = ".first.conv.weight"
_SHOWN = 8
# How a name begins with the authors and here.
_TRAINING_NAMES = (
    (r"stem1\.0", "stem.conv.first.conv"),
    (r"stem1\.1", "stem.conv.first.norm"),
    (r"stem2\.0", "stem.conv.second.conv"),
    (r"stem2\.1", "stem.conv.second.norm"),
    (r"stem2\.2\.bn", "stem.act.conv.norm"),
    (r"stem2\.2", "stem.act.conv.conv"),
    (r"stages\.(\d+)\.conv1\.0", r"blocks.\1.conv.first.conv"),
    (r"stages\.(\d+)\.conv1\.1", r"blocks.\1.conv.first.norm"),
    (r"stages\.(\d+)\.conv2\.0", r"blocks.\1.conv.second.conv"),
    (r"stages\.(\d+)\.conv2\.1", r"blocks.\1.conv.second.norm"),
    (r"stages\.(\d+)\.act\.bn", r"blocks.\1.act.conv.norm"),
    (r"stages\.(\d+)\.act", r"blocks.\1.act.conv.conv"),
    (r"cls1\.2", "head.conv.first.conv"),
    (r"cls1\.3", "head.conv.first.norm"),
    (r"cls2\.0", "head.conv.second.conv"),
)
_DEPLOY_NAMES = (
    (r"stem\.0", "stem.conv"),
    (r"stem\.1", "stem.act.conv"),
    (r"stages\.(\d+)\.conv", r"blocks.\1.conv"),
    (r"stages\.(\d+)\.act", r"blocks.\1.act.conv"),
    (r"cls\.2", "head.conv"),
)


@dataclass(frozen=True)
class Converted:
    """Weights under our names, and the kind of network that they belong to.

    Args:
        state_dict: Keys below ``backbone.`` and ``head.`` (classifier), bare (backbone), or below
            ``backbone.`` beside everything else (detector).
        kind: :data:`CLASSIFIER`, :data:`BACKBONE` or :data:`DETECTOR`.
        dims: Channels of the stem, then of each block.
        act_num: n of the series activation.
        num_classes: Number of classes of a classifier; None for other networks.
        deploy: True if the weights are fused.
    """

    state_dict: dict[str, Tensor]
    kind: str
    dims: tuple[int, ...]
    act_num: int
    num_classes: int | None
    deploy: bool


def convert_authors(state_dict: Mapping[str, Any], act_lambda: float = 1.0) -> Converted:
    """Give the authors' weights our names, after every key and every shape has been checked.

    Args:
        state_dict: The weights of a classifier, backbone or detector, also below ``module.`` or
            ``_orig_mod.``.
        act_lambda: The λ at which the training form was saved. Default: 1, as after training.

    Raises:
        ValueError: The weights are of another network, have additional or missing keys or other
            shapes, or hold NaN or inf.
    """
    prefix = r"^(module\.|_orig_mod\.)+"
    given = {re.sub(prefix, "", str(key)): value for key, value in state_dict.items()}
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
    deploy, dims, act_num, num_classes, in_channels = _read_shapes(theirs, kind)
    names = {key: our_name(key, deploy) for key in theirs}
    expected = _expected_shapes(dims, act_num, num_classes, deploy, in_channels)
    lacking = expected.keys() - names.values()
    problems = [
        *(f"{name} missing" for name in expected if name in lacking and "num_batches" not in name),
        *(f"{key} unexpected" for key, name in names.items() if name not in expected),
        *(
            f"{key} {tuple(theirs[key].shape)} instead of {tuple(expected[name])}"
            for key, name in names.items()
            if theirs[key].shape != expected.get(name, theirs[key].shape)
        ),
    ]
    if problems:
        raise ValueError(f"these are not the weights of a VanillaNet: {_listed(problems)}")
    check_weights({**theirs, **others}, "the file")

    converted = {}
    for key, name in names.items():
        name = name if name.startswith(_HEAD) or kind == BACKBONE else _BACKBONE + name
        converted[name] = theirs[key]
        if name.endswith(_FIRST):
            # Each pair of ours has a λ, which the authors do not save in the state dict.
            name = name.removesuffix(_FIRST) + ".act.act_lambda"
            converted[name] = torch.tensor(act_lambda, dtype=torch.float64)
    return Converted({**converted, **others}, kind, dims, act_num, num_classes, deploy)


def our_name(key: str, deploy: bool = False) -> str:
    """Give our name for the authors' name of a weight; empty if they have no such name."""
    for theirs, ours in _DEPLOY_NAMES if deploy else _TRAINING_NAMES:
        match = re.match(theirs, key)
        if match:
            return match.expand(ours) + key[match.end() :]
    return ""


def _expected_shapes(
    dims: tuple[int, ...], act_num: int, num_classes: int | None, deploy: bool, in_channels: int
) -> dict[str, torch.Size]:
    """Read our names and their shapes from our own modules, which take no memory here."""
    arch = dict(dims=dims, strides=[1] * (len(dims) - 1))
    with torch.device("meta"):
        net = VanillaNet(arch, in_channels=in_channels, act_num=act_num, deploy=deploy)
        if num_classes is not None:
            net.head = nn.Module()
            net.head.conv = ConvPair(dims[-1], num_classes, 1, last_norm=False, deploy=deploy)
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    return {key: shape for key, shape in shapes.items() if not key.endswith(".act_lambda")}


def _read_shapes(
    theirs: Mapping[str, Tensor], kind: str
) -> tuple[bool, tuple[int, ...], int, int | None, int]:
    """Read the form (True for deploy), dims, act_num, the classes and the image's channels."""
    deploy = "stem.1.weight" in theirs
    if not deploy and "stem2.2.weight" not in theirs:
        if any(key.startswith(("stem.conv.", "blocks.0.")) for key in theirs):
            raise ValueError("these weights already have mmvanilla's names: use the file as it is")
        found = _listed(list(theirs)) or "nothing"
        raise ValueError(f"these are not VanillaNet weights of the authors, found {found}")

    def shape(key: str) -> torch.Size:
        if key not in theirs or theirs[key].dim() != 4:
            raise ValueError(f"{key} is missing, or is not the weight of a convolution")
        return theirs[key].shape

    kernels = (f"stages.{block}.act.weight" for block in count())
    blocks = [shape(key)[0] for key in takewhile(theirs.__contains__, kernels)]
    stem = shape("stem.1.weight" if deploy else "stem2.2.weight")
    classifier = "cls.2.weight" if deploy else "cls2.0.weight"
    classes = shape(classifier)[0] if kind == CLASSIFIER else None
    in_channels = shape("stem.0.weight" if deploy else "stem1.0.weight")[1]
    return deploy, (stem[0], *blocks), stem[-1] // 2, classes, in_channels


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN] + ["…"] * (len(names) > _SHOWN))
