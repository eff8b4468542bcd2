"""Load weights that fit, or raise a clear error: no module keeps random weights.

mmengine loads non-strictly: where names differ, it warns and goes on. A model in deploy form would
then keep its random weights when it is given weights of the training form. The mixin in this module
checks the weights before any of them is loaded.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmvanilla.models.fusion import FusableLayer, fuse_model
from mmvanilla.utils.paths import tool_command

# Entries that may be missing: a counter that nothing needs, and λ, which is then 1.
_OPTIONAL = ("num_batches_tracked", "act_lambda")
_SHOWN = 3
_ACT_KERNEL = re.compile(r"(^|\.)act\.conv(\.conv)?\.weight$")
_STEM_KERNEL = re.compile(r"(^|\.)stem\.conv(\.first)?(\.conv)?\.weight$")
_AUTHORS_KEY = re.compile(r"^(module\.)?(backbone\.)?(stem1\.0|stem\.0|stages\.0\.conv1?)\b")


class StrictLoadingMixin:
    """Strict loading for a module that has a training form and a deploy form.

    - A module in deploy form fuses weights of the training form, and logs that. For this it builds
      another module of its own class, from the same arguments with ``deploy=False``.
    - A module in training form refuses fused weights, since they cannot be separated again.
    - Weights that are missing or have another shape are an error, even if the caller loads
      non-strictly as mmengine does, unless :attr:`requires_all_weights` is False.

    This holds for ``load_state_dict`` and for mmengine's ``load_checkpoint``, ``load_from`` and
    ``init_cfg``.
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
        return not any(isinstance(module, FusableLayer) for module in self._module.modules())

    def switch_to_deploy(self, test_cfg: Any = None) -> None:
        """Turn the trained module into its deploy form, in place; a second call does nothing.

        ``mmvanilla.fuse_model(model)`` fuses a whole detector, segmenter or classifier, with its
        head, and returns a copy.

        Args:
            test_cfg: Ignored; MMPose passes the model's ``test_cfg`` to every part that has this
                method.

        Raises:
            RuntimeError: The module cannot be fused, as :func:`mmvanilla.fuse_model` says.
            TypeError: A norm has no running statistics, so it cannot be fused.
        """
        if not self.deploy:
            fuse_model(self._module, inplace=True)

    @property
    def _module(self) -> nn.Module:
        assert isinstance(self, nn.Module)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        given = {
            key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)
        }
        if self.deploy:
            fused = self._fuse_on_load(given)
            if fused is not None:
                for key in given:
                    del state_dict[prefix + key]
                given = fused
                state_dict.update({prefix + key: value for key, value in fused.items()})
        elif _is_fused(self._module, given):
            raise RuntimeError(
                f"these weights are fused, but the {self._name} is not; build it with "
                "deploy=True (a fused checkpoint has such a config beside it), or load the "
                "checkpoint from before fusing"
            )
        if self.requires_all_weights:
            self._require(self._module.state_dict(), given)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[misc]
        fading = {float(value) for key, value in given.items() if key.endswith("act_lambda")}
        if fading and min(fading) < 1.0:
            print_log(
                f"these weights were saved at λ = {min(fading):g}, in the middle of deep "
                "training, and the model keeps this λ. To go on with deep training, have "
                "DeepTrainingHook in custom_hooks; to go on at λ = 1, add "
                "dict(type='DeepTrainingHook', decay_epochs=0) there, or call "
                "mmvanilla.set_act_lambda(model, 1)",
                "current",
                logging.WARNING,
            )

    def _fuse_on_load(self, given: dict[str, Any]) -> dict[str, Tensor] | None:
        """Fuse the weights of the training form in ``given``; None if there are none."""
        own = self._module.state_dict()
        if not _missing(own, given):
            return None
        training_form = self._build_training_form()
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
                form = type(self)(*args, **{**kwargs, "deploy": False})
        except TypeError as error:
            raise RuntimeError(
                f"these weights do not fit {self._name}, and its training form, to fuse them, "
                f"cannot be built ({error}): pass deploy by its name, or load fused weights"
            ) from error
        return form._module

    def _require(self, expected: Mapping[str, Tensor], given: Mapping[str, Any]) -> None:
        problem = _misfit(expected, given)
        if problem:
            raise RuntimeError(f"these weights do not fit {self._name}: {problem}")

    @property
    def _name(self) -> str:
        return f"{type(self).__name__} ({'deploy' if self.deploy else 'training'} form)"


def _is_fused(training_form: nn.Module, given: Mapping[str, Any]) -> bool:
    """Tell whether ``given`` has the plain convolutions that replace the fusable layers."""
    outermost = [
        name
        for name, module in training_form.named_modules()
        if isinstance(module, FusableLayer)
        and not isinstance(training_form.get_submodule(name.rpartition(".")[0]), FusableLayer)
    ]
    return all(f"{name}.weight" in given for name in outermost)


def _missing(expected: Mapping[str, Tensor], given: Mapping[str, Any]) -> list[str]:
    return [key for key in expected if key not in given and not key.endswith(_OPTIONAL)]


def _misfit(expected: Mapping[str, Tensor], given: Mapping[str, Any]) -> str:
    """Say what does not fit and what to do; an empty string if every tensor is there."""
    shapes = {
        key: (tuple(given[key].shape), tuple(tensor.shape))
        for key, tensor in expected.items()
        if key in given and given[key].shape != tensor.shape
    }
    if shapes:
        for key, (found, wanted) in shapes.items():
            if _ACT_KERNEL.search(key) and found[:-2] == wanted[:-2]:
                n, own = found[-1] // 2, wanted[-1] // 2
                return f"they have act_num={n}, but the model has act_num={own}; set act_num={n}"
            if len(shapes) == 1 and _STEM_KERNEL.search(key):
                return (
                    f"they take images of {found[1]} channels, but the model has "
                    f"in_channels={wanted[1]}; set in_channels={found[1]}, or adapt the authors' "
                    f"weights: `{tool_command('convert_checkpoint')} IN OUT --in-channels "
                    f"{wanted[1]}`"
                )
        return f"{len(shapes)} tensors have another shape ({_list(shapes)}); check arch"
    missing = _missing(expected, given)
    if not missing:
        return ""
    remedy = "check arch and deep_training"
    prefix = next((key[: -len(missing[0])] for key in given if key.endswith(missing[0])), "")
    if prefix:
        remedy = f"they have the prefix '{prefix}': load with prefix='{prefix}'"
    elif any(_AUTHORS_KEY.match(key) for key in given):
        remedy = (
            "they have the authors' names: load vanillanet:///path/to/the/file.pth, or convert it "
            f"with `{tool_command('convert_checkpoint')}`"
        )
    return f"{len(missing)} tensors are missing: {', '.join(missing[:_SHOWN])}, …; {remedy}"


def _list(shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> str:
    shown = [f"{key} {found} instead of {own}" for key, (found, own) in shapes.items()]
    return ", ".join(shown[:_SHOWN] + ["…"] * (len(shown) > _SHOWN))
