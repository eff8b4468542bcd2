"""Load weights that fit, or raise a clear error: no module keeps random weights.

mmengine loads non-strictly: where names differ, it warns and goes on, and the model keeps its
random weights. The mixin in this module checks the weights before any of them is loaded.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmvanilla.models.fusion import FusableLayer, fuse_model
from mmvanilla.models.merging import adopt_single_form

# Entries that may be missing: a counter that nothing needs, and λ, which is then 1.
_OPTIONAL = ("num_batches_tracked", "act_lambda")
_SHOWN = 3


class StrictLoadingMixin(nn.Module):
    """Strict loading, however it is called, of a module with a training form and a deploy form.

    - The deploy form fuses weights of the training form, and logs that. For this it builds another
      module of its own class, from the same arguments with ``deploy=False``.
    - The training form refuses fused weights, since they cannot be separated again; given those of
      merged pairs, it becomes one with ``deep_training=False``.
    - Weights that are missing or have another shape are an error, even if the caller loads
      non-strictly as mmengine does, unless :attr:`requires_all_weights` is False.
    """

    #: Whether incomplete weights are always an error. False: the caller's ``strict`` decides.
    requires_all_weights = True

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Keep the arguments, from which the training form of a deploy form is built."""
        self = super().__new__(cls)
        self._arguments = (args, kwargs)
        return self

    @property
    def deploy(self) -> bool:
        """True if the module is fused, or was built in deploy form."""
        return not any(isinstance(module, FusableLayer) for module in self.modules())

    def switch_to_deploy(self, test_cfg: Any = None) -> None:
        """Turn the trained module into its deploy form, in place; a second call does nothing.

        Args:
            test_cfg: Ignored; MMPose passes it.

        Raises:
            RuntimeError, TypeError: As :func:`mmvanilla.fuse_model`.
        """
        if not self.deploy:
            fuse_model(self, inplace=True)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        given = {
            key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)
        }
        if adopt_single_form(self, given):
            print_log(
                f"these weights are of single convolutions, and so is the {self._name} now; in "
                "several processes, or with averages, build it with deep_training=False",
                "current",
            )
        if self.deploy:
            fused = self._fuse_on_load(given)
            if fused is not None:
                for key in given:
                    del state_dict[prefix + key]
                given = fused
                state_dict.update({prefix + key: value for key, value in fused.items()})
        elif _is_fused(self, given):
            raise RuntimeError(
                f"these weights are fused, but the {self._name} is not; build it with "
                "deploy=True (a fused checkpoint has such a config beside it), or load the "
                "checkpoint from before fusing"
            )
        own = self.state_dict()
        if self.requires_all_weights:
            self._require(own, given)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        fading = [key for key in own if key.endswith("act_lambda") and given.get(key, 1) < own[key]]
        if fading:
            text = f"the model has λ = {float(given[fading[0]]):g} of these weights: go on with "
            text += "DeepTrainingHook (decay_epochs=0 for λ = 1), or call set_act_lambda(model, 1)"
            print_log(text, "current", logging.WARNING)

    def _fuse_on_load(self, given: dict[str, Any]) -> dict[str, Tensor] | None:
        """Fuse the weights of the training form in ``given``; None if there are none."""
        own = self.state_dict()
        if not _missing(own, given):
            return None
        training_form = self._build_training_form()
        adopt_single_form(training_form, given)
        expected = training_form.state_dict()
        if not (expected.keys() - own.keys()) & given.keys():
            return None
        self._require(expected, given)
        weights = {key: given[key] for key in expected if key in given}
        training_form.load_state_dict(weights, strict=False, assign=True)
        # In the type of this module, which may be wider than that of the file.
        training_form.to(next(iter(own.values())).dtype)
        fuse_model(training_form.eval(), inplace=True)
        print_log(f"fused weights of the training form for {self._name} in deploy form", "current")
        rest = {key: value for key, value in given.items() if key not in expected}
        return {**rest, **training_form.state_dict()}

    def _build_training_form(self) -> nn.Module:
        args, kwargs = copy.deepcopy(self._arguments)
        try:
            with torch.device("meta"):
                return type(self)(*args, **{**kwargs, "deploy": False})
        except TypeError as error:
            raise RuntimeError(
                f"these weights do not fit {self._name}, and its training form cannot be built "
                f"to fuse them ({error}): pass deploy by its name, or load fused weights"
            ) from error

    def _require(self, expected: Mapping[str, Tensor], given: Mapping[str, Any]) -> None:
        """Raise an error that says what does not fit, and what to do, if a tensor does not."""
        problems = [
            f"{key} {tuple(given[key].shape)} instead of {tuple(own.shape)}"
            for key, own in expected.items()
            if key in given and given[key].shape != own.shape
        ]
        what, remedy = "have another shape", "check arch, act_num and in_channels"
        if not problems:
            problems = _missing(expected, given)
            what, remedy = (
                "are missing",
                "check arch and deep_training; a file of the authors loads ",
            )
            remedy += "by its name as vanillanet:///path/to/the/file.pth"
            ends = [key for key in given if problems and key.endswith(problems[0])]
            if ends:
                remedy = f"load with prefix='{ends[0].removesuffix(problems[0])}'"
        if problems:
            shown = ", ".join(problems[:_SHOWN] + ["…"] * (len(problems) > _SHOWN))
            raise RuntimeError(
                f"these weights do not fit {self._name}: {len(problems)} tensors {what}: {shown}; "
                f"{remedy}"
            )

    @property
    def _name(self) -> str:
        return f"{type(self).__name__} ({'deploy' if self.deploy else 'training'} form)"


def _is_fused(training_form: nn.Module, given: Mapping[str, Any]) -> bool:
    """Tell whether ``given`` has a plain convolution where there is a fusable layer."""
    return any(
        f"{name}.weight" in given
        for name, module in training_form.named_modules()
        if isinstance(module, FusableLayer)
    )


def _missing(expected: Mapping[str, Tensor], given: Mapping[str, Any]) -> list[str]:
    return [key for key in expected if key not in given and not key.endswith(_OPTIONAL)]
