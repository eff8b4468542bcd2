"""Load weights that fit, or raise a clear error: no module keeps random weights.

mmengine loads non-strictly: where names differ, it warns and goes on. A model in deploy form would
then keep its random weights when it is given weights of the training form. The mixin in this module
checks the weights before any of them is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmvanilla.models.fusion import FusableLayer, fuse_model
from mmvanilla.models.load_errors import find_misfit, find_missing


def fuse_state_dict(training_form: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fuse the weights of a model in training form.

    Args:
        training_form: A model in training form, for its structure. Its own weights are not used
            and may be on the meta device. The model is fused afterwards.
        weights: State dict of the training form; its tensors are not changed. The counters of
            batches may be missing, and so may λ, which is then 1.

    Returns:
        The state dict of the deploy form.

    Raises:
        KeyError: ``weights`` lacks a tensor of the training form, or has an additional one.
        RuntimeError: λ in ``weights`` is not 1.
        TypeError: A norm has no running statistics.
    """
    missing = find_missing(training_form.state_dict(), weights)
    if missing:
        raise KeyError(f"these weights of the training form lack {', '.join(missing)}")
    for key, value in weights.items():
        path, _, name = key.rpartition(".")
        module = training_form.get_submodule(path)
        if name in module._parameters:
            module._parameters[name] = nn.Parameter(value.detach(), requires_grad=False)
        elif name in module._buffers:
            module._buffers[name] = value
        elif hasattr(module, name):
            setattr(module, name, float(value))  # λ
        else:
            raise KeyError(f"the training form has no tensor {key}, which these weights have")
    fuse_model(training_form.eval(), inplace=True)
    return training_form.state_dict()


class StrictLoadingMixin:
    """Strict loading for a module that has a training form and a deploy form.

    - A module in deploy form fuses weights of the training form, and logs that.
    - A module in training form refuses fused weights, since they cannot be separated again.
    - Weights that are missing or have another shape are an error, even if the caller loads
      non-strictly as mmengine does, unless :attr:`requires_all_weights` is False.

    This holds for ``load_state_dict`` and for mmengine's ``load_checkpoint``, ``load_from`` and
    ``init_cfg``.
    """

    #: Whether incomplete weights are always an error. False: the caller's ``strict`` decides.
    requires_all_weights = True

    @property
    def deploy(self) -> bool:
        """True if the module is fused, or was built in deploy form."""
        return not any(isinstance(module, FusableLayer) for module in self._module.modules())

    def switch_to_deploy(self, test_cfg: Any = None) -> None:
        """Turn the trained module into its deploy form, in place; a second call does nothing.

        ``mmvanilla.fuse_model(model)`` fuses a whole detector, segmenter or classifier, with its
        head, and returns a copy::

            model.eval()
            model.backbone.switch_to_deploy()  # the backbone, in place
            fused = mmvanilla.fuse_model(model)  # everything, in a copy

        Args:
            test_cfg: Ignored; MMPose passes the model's ``test_cfg`` to every part that has this
                method.

        Raises:
            RuntimeError: The module is in training mode, or its λ is not 1.
            TypeError: A norm has no running statistics, so it cannot be fused.
        """
        if not self.deploy:
            fuse_model(self._module, inplace=True)

    def build_training_form(self) -> nn.Module:
        """Build a module in training form from the same arguments; its weights are not used."""
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
                f"these weights are fused, but the {self._name} is not; build it with "
                "deploy=True (a fused checkpoint has such a config beside it), or load the "
                "checkpoint from before fusing"
            )
        if self.requires_all_weights:
            self._require(self._module.state_dict(), given)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[misc]

    def _fuse_on_load(self, given: dict[str, Any]) -> dict[str, Tensor] | None:
        """Fuse the weights of the training form in ``given``; None if there are none."""
        with torch.device("meta"):
            training_form = self.build_training_form()
        if not any(isinstance(module, FusableLayer) for module in training_form.modules()):
            return None  # an ablation whose two forms are the same
        expected = training_form.state_dict()
        if not (expected.keys() - self._module.state_dict().keys()) & given.keys():
            return None
        self._require(expected, given)
        fused = fuse_state_dict(
            training_form, {key: given[key] for key in expected if key in given}
        )
        print_log(f"fused weights of the training form for {self._name} in deploy form", "current")
        return {**{key: given[key] for key in given if key not in expected}, **fused}

    def _require(self, expected: dict[str, Tensor], given: dict[str, Any]) -> None:
        problem = find_misfit(expected, given)
        if problem:
            raise RuntimeError(f"these weights do not fit {self._name}: {problem}")

    @property
    def _name(self) -> str:
        return f"{type(self).__name__} ({'deploy' if self.deploy else 'training'} form)"


def _is_fused(training_form: nn.Module, given: dict[str, Any]) -> bool:
    """Tell whether ``given`` has the plain convolutions that replace the fusable layers."""
    outermost = [
        name
        for name, module in training_form.named_modules()
        if isinstance(module, FusableLayer)
        and not isinstance(training_form.get_submodule(name.rpartition(".")[0]), FusableLayer)
    ]
    return all(f"{name}.weight" in given for name in outermost)
