"""λ of a model: reading it, setting it, and its schedules in deep training (paper, section 3.1).

λ (``act_lambda``) is one number for the whole model. At 0 the activation inside each
:class:`mmvanilla.models.conv_pair.ConvPair` is a ReLU; at 1 it is the identity, and the pair can be
fused.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from torch import nn

from mmvanilla.models.fading_relu import FadingReLU


def linear_lambda(progress: float) -> float:
    """λ = e / E.

    The paper prints E / e in equation 2, which would start at infinity: a slip.

    Args:
        progress: The part of the decay that is over, e / E; below 0 counts as 0, above 1 as 1.
    """
    return min(max(progress, 0.0), 1.0)


def cosine_lambda(progress: float) -> float:
    """λ = (1 − cos(π e / E)) / 2: slow at both ends. Arguments as :func:`linear_lambda`."""
    if progress >= 1.0:
        return 1.0  # exactly, since fusing asks for it
    return (1.0 - math.cos(math.pi * max(progress, 0.0))) / 2.0


SCHEDULES = {"linear": linear_lambda, "cosine": cosine_lambda}


def set_act_lambda(model: nn.Module, value: float) -> int:
    """Set λ in the whole model, inside wrappers of any kind.

    Args:
        model: Any module.
        value: λ, from 0 (ReLU) to 1 (identity).

    Returns:
        The number of modules that have a λ; 0 if ``model`` is not made for deep training, or is
        fused.

    Raises:
        ValueError: λ is out of its range.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"λ goes from 0 (ReLU) to 1 (identity), found {value!r}")
    fading = [module for module in model.modules() if isinstance(module, FadingReLU)]
    if any(module.act_lambda != value for module in fading):
        _drop_compiled_lambda()
    for module in fading:
        module.act_lambda = value
    return len(fading)


def _drop_compiled_lambda() -> None:
    # Where torch.compile does not watch the attributes of modules (torch 2.1), a compiled model
    # would go on with the λ that it was compiled with.
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is not None and not dynamo.config.guard_nn_modules:
        dynamo.reset()


def get_act_lambda(model: nn.Module) -> float | None:
    """λ of a model; None if nothing in it has one.

    Raises:
        RuntimeError: Its modules differ, so that the model has no one λ.
    """
    values = {
        float(module.act_lambda) for module in model.modules() if isinstance(module, FadingReLU)
    }
    if len(values) > 1:
        raise RuntimeError(
            f"this model has several λ, {', '.join(f'{value:g}' for value in sorted(values))}; "
            "give it one with mmvanilla.set_act_lambda(model, value)"
        )
    return values.pop() if values else None
