"""Explain in one line why weights do not fit a model, and what to do about it.

To add a hint, write a function that takes the expected and the given state dict and returns a line,
or an empty string if it does not apply; then add it to :data:`_SHAPE_HINTS` or
:data:`_MISSING_HINTS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from mmvanilla.models.published import SCHEME, addresses_that_fit
from mmvanilla.utils.paths import tool_command

# Entries that may be missing: a counter that nothing needs, and λ, which is then 1.
_OPTIONAL_SUFFIXES = ("num_batches_tracked", "act_lambda")
_EXAMPLES_SHOWN = 3
_ACT_KERNEL = re.compile(r"(^|\.)act\.conv(\.conv)?\.weight$")
_STEM_KERNEL = re.compile(r"(^|\.)stem\.conv(\.first)?(\.conv)?\.weight$")
_AUTHORS_KEY = re.compile(r"^(module\.)?(stem1\.0|stem\.0|stages\.0\.conv1?)\b")

_Hint = Callable[[Mapping[str, Tensor], Mapping[str, Any]], str]


def find_missing(expected: Mapping[str, Tensor], given: Mapping[str, Any]) -> list[str]:
    """List the keys that a model needs and a state dict lacks.

    Args:
        expected: State dict of the model.
        given: State dict to be loaded.
    """
    return [key for key in expected if key not in given and not key.endswith(_OPTIONAL_SUFFIXES)]


def find_misfit(expected: Mapping[str, Tensor], given: Mapping[str, Any]) -> str:
    """Explain in one line why a state dict does not fit a model, and what to do.

    Args:
        expected: State dict of the model.
        given: State dict to be loaded.

    Returns:
        The line; empty if the state dict has every tensor of the model in the right shape.
    """
    misshaped = [
        key
        for key, tensor in expected.items()
        if key in given and tuple(given[key].shape) != tuple(tensor.shape)
    ]
    if misshaped:
        hint = next((line for line in (h(expected, given) for h in _SHAPE_HINTS) if line), "")
        if hint:
            return hint
        shown = ", ".join(
            f"{key} {tuple(given[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in misshaped[:_EXAMPLES_SHOWN]
        )
        return f"{len(misshaped)} tensors have another shape: {shown}{_dots(misshaped)}; check arch"
    missing = find_missing(expected, given)
    if not missing:
        return ""
    hint = next((line for line in (h(expected, given) for h in _MISSING_HINTS) if line), "")
    shown = ", ".join(missing[:_EXAMPLES_SHOWN]) + _dots(missing)
    return f"{len(missing)} tensors are missing: {shown}{hint and '; '}{hint}"


def _other_act_num(expected: Mapping[str, Tensor], given: Mapping[str, Any]) -> str:
    for key, tensor in expected.items():
        if _ACT_KERNEL.search(key) and key in given and given[key].dim() == 4:
            found, wanted = given[key].shape[-1] // 2, tensor.shape[-1] // 2
            if found != wanted:
                return (
                    f"they have act_num={found}, but the model has act_num={wanted}; "
                    f"set act_num={found}, or take weights trained with act_num={wanted}"
                    f"{_published_with(expected, wanted)}"
                )
    return ""


def _published_with(expected: Mapping[str, Tensor], act_num: int) -> str:
    dims = [len(tensor) for key, tensor in expected.items() if _ACT_KERNEL.search(key)]
    addresses = addresses_that_fit(dims, act_num)
    return f": {' or '.join(addresses)}" if addresses else " (no such weights are published)"


def _other_in_channels(expected: Mapping[str, Tensor], given: Mapping[str, Any]) -> str:
    others = [key for key in expected if key in given and given[key].shape != expected[key].shape]
    if len(others) != 1 or not _STEM_KERNEL.search(others[0]):
        return ""
    found, wanted = given[others[0]].shape, expected[others[0]].shape
    if len(found) != 4 or (found[0], *found[2:]) != (wanted[0], *wanted[2:]):
        return ""
    return (
        f"they take images of {found[1]} channels, but the model has in_channels={wanted[1]}; set "
        f"in_channels={found[1]}, or adapt the authors' weights: {SCHEME}NAME?in_channels="
        f"{wanted[1]}, or `{tool_command('convert_checkpoint')} IN OUT --in-channels {wanted[1]}`"
    )


def _under_a_prefix(expected: Mapping[str, Tensor], given: Mapping[str, Any]) -> str:
    first = next(iter(expected))
    prefix = next((key[: -len(first)] for key in given if key.endswith(f".{first}")), "")
    return f"they have the prefix '{prefix}': load with prefix='{prefix}'" if prefix else ""


def _authors_names(expected: Mapping[str, Tensor], given: Mapping[str, Any]) -> str:
    if not any(_AUTHORS_KEY.match(key.removeprefix("backbone.")) for key in given):
        return ""
    return (
        f"they have the authors' names: load {SCHEME}/path/to/the/file.pth, or convert it with "
        f"`{tool_command('convert_checkpoint')}`"
    )


_SHAPE_HINTS: tuple[_Hint, ...] = (_other_act_num, _other_in_channels)
_MISSING_HINTS: tuple[_Hint, ...] = (_under_a_prefix, _authors_names)


def _dots(items: list[str]) -> str:
    return ", …" if len(items) > _EXAMPLES_SHOWN else ""
