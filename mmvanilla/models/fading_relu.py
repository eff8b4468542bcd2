"""The activation between the two convolutions of a pair, and its λ (paper, section 3.1)."""

from __future__ import annotations

import copy
import logging
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import register_module_module_registration_hook

from mmvanilla.models.compiling import eager_where_changes_are_missed


class FadingReLU(nn.Module):
    """An activation that fades from ReLU to the identity: φλ(x) = (1 − λ)·ReLU(x) + λ·x.

    This is a leaky ReLU of slope λ (paper, equation 1, with λ rising from 0 to 1). At λ = 1 it
    returns its input itself: no kernel runs and no tensor is saved for backward.

    λ is saved with the weights: the state dict has it as the 0-dim tensor ``act_lambda``. A
    checkpoint without this key sets λ to 1. Inside the module it is a plain number, neither a
    parameter nor a buffer, so that reading it never waits for a GPU, and no optimiser, cast,
    broadcast or average changes it. A copy has its own λ, except in a wrapper that keeps a copy to
    average the weights (``AveragedModel`` of torch, or that of mmengine's EMAHook or of timm):
    there the λ of the copy follows.
    """

    # The list of errors of the load that was warned about; all modules share it during one load.
    _warned_load: ClassVar[list[str] | None] = None

    def __init__(self) -> None:
        super().__init__()
        self._act_lambda = 1.0

    @property
    def act_lambda(self) -> Tensor:
        """λ, from 0 (ReLU) to 1 (identity, the default), as a read-only 0-dim tensor in float64.

        It is a tensor, as in the state dict, since ``torch.func.functional_call`` requires one. To
        change λ, assign a number or a tensor.

        Raises:
            ValueError: The assigned value is not between 0 and 1.
        """
        with torch.inference_mode():  # such tensors refuse to be written to
            return torch.tensor(self._act_lambda, dtype=torch.float64, device="cpu")

    @act_lambda.setter
    def act_lambda(self, value: float | Tensor) -> None:
        number = float(value)
        if not 0.0 <= number <= 1.0:
            raise ValueError(f"λ goes from 0 (ReLU) to 1 (identity), found {number!r}")
        self._act_lambda = number
        for follower in _FOLLOWERS.get(self, ()):
            follower.act_lambda = number

    @eager_where_changes_are_missed
    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to a tensor of any shape; ``x`` is overwritten if λ < 1."""
        if self._act_lambda == 1.0:
            return x
        return functional.leaky_relu(x, negative_slope=self._act_lambda, inplace=True)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "act_lambda"] = torch.tensor(
            self._act_lambda, dtype=torch.float64, device="cpu"
        )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        self.act_lambda = state_dict.pop(prefix + "act_lambda", 1.0)
        if self._act_lambda < 1.0 and FadingReLU._warned_load is not error_msgs:
            FadingReLU._warned_load = error_msgs
            print_log(
                f"these weights were saved at λ = {self._act_lambda:g}, in the middle of deep "
                "training, and the model keeps this λ. To go on with deep training, have "
                "DeepTrainingHook in custom_hooks; to go on at λ = 1, add "
                "dict(type='DeepTrainingHook', decay_epochs=0) there, or call "
                "mmvanilla.set_act_lambda(model, 1)",
                "current",
                logging.WARNING,
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> FadingReLU:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        _SOURCES[copied] = ref(self)
        return copied

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows."""
        return f"act_lambda={self._act_lambda:g}"


# The module that each copy was made from, and the copies that follow a module's λ. Both are kept
# outside of the modules, for the sake of pickle and torch.compile, and keep no module alive.
_SOURCES: WeakKeyDictionary[FadingReLU, ref[FadingReLU]] = WeakKeyDictionary()
_FOLLOWERS: WeakKeyDictionary[FadingReLU, WeakSet[FadingReLU]] = WeakKeyDictionary()


def _follow_in_averages(parent: nn.Module, name: str, child: nn.Module | None) -> None:
    """Let the λ of a copy follow its source, if a wrapper registers the copy to average weights.

    Wrappers of this kind hold the copy as ``module``. They average only parameters and buffers, and
    an averaged λ would never reach 1; they have no other place for such a value.
    """
    if name != "module" or child is None or isinstance(parent, nn.ModuleDict):
        return
    if not any(callable(getattr(parent, update, None)) for update in _AVERAGING_METHODS):
        return
    for module in child.modules():
        if not isinstance(module, FadingReLU) or module not in _SOURCES:
            continue
        source = _SOURCES[module]()
        if source is not None:
            _FOLLOWERS.setdefault(source, WeakSet()).add(module)


_AVERAGING_METHODS = ("update_parameters", "update")
register_module_module_registration_hook(_follow_in_averages)
