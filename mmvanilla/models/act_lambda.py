"""λ (``act_lambda``): the activation that fades with it, its schedules, and the λ of a model.

In deep training (paper, section 3.1) λ is one number for the whole model. At 0 the activation
inside each pair of convolutions is a ReLU; at 1 it is the identity, and the pair can be fused.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmvanilla.models.torch_versions import eager_on_old_torch, is_compiling


class FadingReLU(nn.Module):
    """An activation that fades from ReLU to the identity: φλ(x) = (1 − λ)·ReLU(x) + λ·x.

    This is a leaky ReLU of slope λ (paper, equation 1, with λ rising from 0 to 1). At λ = 1 it
    returns its input itself, and saves no tensor for backward.

    The state dict has λ as the 0-dim tensor ``act_lambda``; without this key λ becomes 1. Inside
    the module it is neither a parameter nor a buffer, so that reading it never waits for a GPU, and
    no optimiser, cast, broadcast or average changes it. A copy has its own λ.
    """

    _act_lambda: Tensor
    _is_identity: bool

    def __init__(self) -> None:
        super().__init__()
        self.act_lambda = 1.0

    @property
    def act_lambda(self) -> Tensor:
        """λ, from 0 (ReLU) to 1 (identity, the default), as a copy: a 0-dim tensor in float64.

        Assign a number or a tensor to change it; one out of this range is a ValueError.
        """
        # A tensor, since torch.func.functional_call requires one of what a state dict has.
        return self._act_lambda.clone()

    @act_lambda.setter
    def act_lambda(self, value: float | Tensor) -> None:
        number = float(value)
        if not 0.0 <= number <= 1.0:
            raise ValueError(f"λ goes from 0 (ReLU) to 1 (identity), found {number!r}")
        with torch.inference_mode(False):  # or no gradient could pass later
            self._act_lambda = torch.tensor(number, dtype=torch.float64, device="cpu")
        self._is_identity = number == 1.0

    @eager_on_old_torch
    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to a tensor of any shape; ``x`` is overwritten if λ < 1."""
        if self._is_identity:
            return x
        if is_compiling():
            # A tensor is an input of the compiled code; a number would be compiled into it.
            return torch.where(x > 0, x, x * self._act_lambda)
        return functional.leaky_relu(x, negative_slope=self._act_lambda.item(), inplace=True)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "act_lambda"] = self.act_lambda

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        self.act_lambda = state_dict.get(prefix + "act_lambda", 1.0)


def linear_lambda(progress: float) -> float:
    """Return λ = e / E for the finished part of the decay, clipped to the range from 0 to 1.

    Equation 2 of the paper has E / e, which would start at infinity: a misprint.
    """
    return min(max(progress, 0.0), 1.0)


def cosine_lambda(progress: float) -> float:
    """Return λ = (1 − cos(π e / E)) / 2, which changes slowly at both ends."""
    if progress >= 1.0:
        return 1.0  # exactly 1, which fusing requires
    return (1.0 - math.cos(math.pi * max(progress, 0.0))) / 2.0


SCHEDULES = {"linear": linear_lambda, "cosine": cosine_lambda}


def set_act_lambda(model: nn.Module, value: float) -> int:
    """Set λ in the whole model, and return the number of modules that have one.

    A copy that averages the weights has a λ of its own: set that, too, as ``DeepTrainingHook`` does
    for mmengine's ``EMAHook``.

    Raises:
        ValueError: ``value`` is not between 0 (ReLU) and 1 (identity).
    """
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
        found = ", ".join(f"{value:g}" for value in sorted(values))
        raise RuntimeError(f"the modules of this model have different λ: {found}; set one for all")
    return values.pop() if values else None
