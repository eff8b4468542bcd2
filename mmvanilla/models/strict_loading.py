"""Weights that fit, or a clear error: no module of ours stays random behind a warning.

mmengine loads non-strictly: where names differ it warns and goes on. A deploy model that is given
weights of the training form would keep its random ones. The mixin here looks at what a module is
given before any of it is loaded.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmvanilla.models.fusion import FusableLayer, fuse_model
from mmvanilla.models.published import addresses_that_fit

# Entries that a module may do without: a counter, and what FadingReLU takes as 1 when absent.
_OPTIONAL_SUFFIXES = ("num_batches_tracked", "act_lambda")
_EXAMPLES_SHOWN = 3
_ACT_KERNEL = re.compile(r"(^|\.)act\.conv(\.conv)?\.weight$")
_AUTHORS_KEY = re.compile(r"^(module\.)?(stem1\.0|stem\.0|stages\.0\.conv1?)\b")


class StrictLoadingMixin:
    """For a module that has a training form and a deploy form.

    - In deploy form, given weights of the training form: fuses them, and says so.
    - In training form, given fused weights: an error, since there is no way back.
    - Weights that are missing or of another shape: an error, also when the caller loads
      non-strictly as mmengine does, unless :attr:`requires_all_weights` is False.

    It serves ``load_state_dict``, mmengine's ``load_checkpoint``, ``load_from`` and ``init_cfg``.
    """

    #: False leaves incomplete weights to the caller's own strictness.
    requires_all_weights = True

    @property
    def deploy(self) -> bool:
        """Whether nothing of the training form is left."""
        return not any(isinstance(module, FusableLayer) for module in self._module.modules())

    def switch_to_deploy(self) -> None:
        """Turn the trained module into its deploy form, in place; nothing happens the second time.

        Raises:
            RuntimeError: The module is in training mode, or its λ is not 1.
            TypeError: A norm has no running statistics, so that it cannot be fused.
        """
        fuse_model(self._module, inplace=True)

    def build_training_form(self) -> nn.Module:
        """A module of the same arguments in training form; its weights do not matter."""
        raise NotImplementedError

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
                f"these weights of {self._name} are fused, but the model is in training form; "
                "build it with deploy=True (a fused checkpoint has such a config beside it), or "
                "load the checkpoint from before fusing"
            )
        if self.requires_all_weights:
            self._require(self._module.state_dict(), given)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[misc]

    def _fuse_on_load(self, given: dict[str, Any]) -> dict[str, Tensor] | None:
        """What weights of the training form amount to; None if these are none of those."""
        with torch.device("meta"):
            training_form = self.build_training_form()
        if not any(isinstance(module, FusableLayer) for module in training_form.modules()):
            return None  # an ablation that is plain in both forms
        expected = training_form.state_dict()
        if not (expected.keys() - self._module.state_dict().keys()) & given.keys():
            return None
        self._require(expected, given)
        own = {key: value for key, value in given.items() if key in expected}
        strict = nn.Module.load_state_dict(training_form, own, strict=False, assign=True)
        assert all(key.endswith(_OPTIONAL_SUFFIXES) for key in strict.missing_keys)
        fused = fuse_model(training_form.eval(), inplace=True).model.state_dict()
        print_log(f"fused weights of the training form for {self._name} in deploy form", "current")
        return {**{key: value for key, value in given.items() if key not in own}, **fused}

    def _require(self, expected: dict[str, Tensor], given: dict[str, Any]) -> None:
        problem = _misfit(expected, given)
        if problem:
            raise RuntimeError(f"these weights do not fit {self._name}: {problem}")

    @property
    def _name(self) -> str:
        return f"{type(self).__name__} ({'deploy' if self.deploy else 'training'} form)"


def _is_fused(training_form: nn.Module, given: dict[str, Any]) -> bool:
    """Whether ``given`` has the plain convolutions that would replace the fusable layers."""
    outermost = [
        name
        for name, module in training_form.named_modules()
        if isinstance(module, FusableLayer)
        and not isinstance(training_form.get_submodule(name.rpartition(".")[0]), FusableLayer)
    ]
    return all(f"{name}.weight" in given for name in outermost)


def _misfit(expected: dict[str, Tensor], given: dict[str, Any]) -> str:
    """Say in one line what is wrong with ``given``; empty if nothing is."""
    missing = [key for key in expected if key not in given and not key.endswith(_OPTIONAL_SUFFIXES)]
    misshaped = [
        key
        for key, tensor in expected.items()
        if key in given and tuple(given[key].shape) != tuple(tensor.shape)
    ]
    for key in misshaped:
        if _ACT_KERNEL.search(key) and given[key].dim() == 4:
            found, wanted = (tensor.shape[-1] // 2 for tensor in (given[key], expected[key]))
            if found != wanted:
                return (
                    f"they are of act_num={found}, the model is of act_num={wanted}; "
                    f"set act_num={found}, or take weights trained with act_num={wanted}"
                    f"{_published_with(expected, wanted)}"
                )
    if misshaped:
        shown = ", ".join(
            f"{key} {tuple(given[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in misshaped[:_EXAMPLES_SHOWN]
        )
        return f"{len(misshaped)} have another shape: {shown}{_dots(misshaped)}; check arch"
    if not missing:
        return ""
    shown = ", ".join(missing[:_EXAMPLES_SHOWN]) + _dots(missing)
    return f"{len(missing)} are missing: {shown}{_hint(expected, given)}"


def _published_with(expected: dict[str, Tensor], act_num: int) -> str:
    dims = [len(tensor) for key, tensor in expected.items() if _ACT_KERNEL.search(key)]
    addresses = addresses_that_fit(dims, act_num)
    return f": {' or '.join(addresses)}" if addresses else " (none of these widths is published)"


def _dots(items: list[str]) -> str:
    return ", …" if len(items) > _EXAMPLES_SHOWN else ""


def _hint(expected: dict[str, Tensor], given: dict[str, Any]) -> str:
    first = next(iter(expected))
    prefix = next((key[: -len(first)] for key in given if key.endswith(f".{first}")), "")
    if prefix:
        return f"; they are there under '{prefix}': load with prefix='{prefix}'"
    if any(_AUTHORS_KEY.match(key.removeprefix("backbone.")) for key in given):
        return (
            "; they carry the authors' names: load vanillanet:///path/to/the/file.pth, or convert "
            "it with tools/convert_checkpoint.py"
        )
    return ""
