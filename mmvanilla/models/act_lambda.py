"""Read and set the λ of a model, and its schedules in deep training (paper, section 3.1).

λ (``act_lambda``) is one number for the whole model. At 0 the activation inside each
:class:`mmvanilla.models.conv_pair.ConvPair` is a ReLU; at 1 it is the identity, and the pair can be
fused.
"""

from __future__ import annotations

import math

from torch import nn

from mmvanilla.models.conv_pair import FadingReLU


def linear_lambda(progress: float) -> float:
    """Return λ = e / E.

    Equation 2 of the paper has E / e, which would start at infinity: a misprint.

    Args:
        progress: The finished part of the decay, e / E. It is clipped to the range from 0 to 1.
    """
    return min(max(progress, 0.0), 1.0)


def cosine_lambda(progress: float) -> float:
    """Return λ = (1 − cos(π e / E)) / 2, which changes slowly at both ends.

    Args:
        progress: The finished part of the decay, e / E. It is clipped to the range from 0 to 1.
    """
    if progress >= 1.0:
        return 1.0  # exactly 1, which fusing requires
    return (1.0 - math.cos(math.pi * max(progress, 0.0))) / 2.0


SCHEDULES = {"linear": linear_lambda, "cosine": cosine_lambda}


def set_act_lambda(model: nn.Module, value: float) -> int:
    """Set λ in the whole model, inside wrappers of any kind.

    A copy that averages the weights has a λ of its own: set that, too, as ``DeepTrainingHook`` does
    for mmengine's ``EMAHook``.

    Args:
        model: A module of any kind.
        value: λ, from 0 (ReLU) to 1 (identity).

    Returns:
        The number of modules that have a λ; 0 if ``model`` was not built for deep training, or is
        fused.

    Raises:
        ValueError: λ is out of its range.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"λ goes from 0 (ReLU) to 1 (identity), found {value!r}")
    fading = [module for module in model.modules() if isinstance(module, FadingReLU)]
    for module in fading:
        module.act_lambda = value
    return len(fading)


def get_act_lambda(model: nn.Module) -> float | None:
    """Return the λ of a model; None if none of its modules has one.

    Raises:
        RuntimeError: Its modules have different λ.
    """
    values = {
        float(module.act_lambda) for module in model.modules() if isinstance(module, FadingReLU)
    }
    if len(values) > 1:
        raise RuntimeError(
            f"the modules of this model have different λ: "
            f"{', '.join(f'{value:g}' for value in sorted(values))}; set one for all of them with "
            "mmvanilla.set_act_lambda(model, value)"
        )
    return values.pop() if values else None
