"""Layer-wise learning rate decay for any model whose backbone tells the depth of its parameters."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

_NAME = "LayerDecayOptimWrapperConstructor"


class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Makes learning rates smaller towards the input: lr × rate^(num_layers + 1 − id).

    The stem has the id 0; the neck and heads have the id ``num_layers + 1`` and keep the full
    learning rate. Some module of the model tells the depth of its parameters by a method
    ``get_layer_depth(param_name, prefix) -> (depth, number of depths)``, as VanillaNet and some
    backbones of MMPretrain do. Biases and other 1-d parameters have no weight decay. In MMPose,
    where another class has the name, it is ``mmvanilla.LayerDecayOptimWrapperConstructor``.

    Args:
        optim_wrapper_cfg: The optimiser wrapper's config; its optimiser needs an ``lr``.
        paramwise_cfg: ``decay_rate``, the factor from one layer to the next, above 0 and at most 1;
            and ``num_layers``, over which the B blocks are spread evenly: block i has the id
            i · num_layers // B + 1. Default: B. For VanillaNet-13 (B = 11) its authors' detectors
            put two blocks into each of 6 layers.

    Raises:
        TypeError: An option is misspelt or missing, or no module of the model counts depths.
        ValueError: An option is out of its range, or the optimiser's config has no ``lr``.

    Examples:
        >>> optim_wrapper = dict(
        ...     type="OptimWrapper",
        ...     optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.05),
        ...     constructor="LayerDecayOptimWrapperConstructor",
        ...     paramwise_cfg=dict(decay_rate=0.6, num_layers=6),
        ... )
    """

    def _validate_cfg(self) -> None:
        options = self.paramwise_cfg
        if not isinstance(options, dict) or "decay_rate" not in options:
            raise TypeError(f"paramwise_cfg needs a decay_rate, found {options!r}")
        unknown = sorted(set(options) - {"decay_rate", "num_layers"})
        if unknown:
            raise TypeError(f"paramwise_cfg takes decay_rate and num_layers, found {unknown}")
        rate, num_layers = options["decay_rate"], options.get("num_layers")
        if not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise ValueError(f"decay_rate must be above 0 and at most 1, found {rate!r}")
        if num_layers is not None and (not isinstance(num_layers, int) or num_layers < 1):
            raise ValueError(f"num_layers must be an integer of at least 1, found {num_layers!r}")
        if self.base_lr is None:
            raise ValueError("layer-wise decay scales the optimizer's lr, which is missing; add it")

    def add_params(
        self, params: list[dict[str, Any]], module: nn.Module, prefix: str = "", **kwargs: Any
    ) -> None:
        """Sort the parameters into groups, one for each layer with and without weight decay."""
        counters = _depth_counters(module)
        rate, groups = self.paramwise_cfg["decay_rate"], {}
        for name, param in module.named_parameters():
            if not param.requires_grad:
                continue
            layer_id, rest_id = self._layer_id(name, counters)
            decays = param.ndim > 1 and not name.endswith("bias")
            group_name = "rest" if layer_id == rest_id else f"layer_{layer_id}_of_{rest_id - 1}"
            group_name += "" if decays else "_no_decay"
            if group_name not in groups:
                scale = rate ** (rest_id - layer_id)
                group = dict(group_name=group_name, lr_scale=scale, lr=self.base_lr * scale)
                if not decays or self.base_wd is not None:
                    group["weight_decay"] = self.base_wd if decays else 0.0
                groups[group_name] = dict(group, params=[])
            groups[group_name]["params"].append(param)
        for name, group in groups.items():
            text = f"{name}: {len(group['params'])} parameters, lr {group['lr']:.4g}"
            print_log(text, "current")
        params.extend(groups.values())

    def _layer_id(self, name: str, counters: dict[str, Any]) -> tuple[int, int]:
        """Return the layer id of a parameter, and the id of the parts after the backbone."""
        prefix = max((p for p in counters if name.startswith(p)), key=len, default=None)
        if prefix is None:
            return 0, 0  # outside of the backbone: the full learning rate, whatever num_layers is
        depth, num_depths = counters[prefix].get_layer_depth(name, prefix)
        num_blocks = num_depths - 2
        # None if not given, or reset by a config that inherits it.
        num_layers = self.paramwise_cfg.get("num_layers") or num_blocks
        if num_layers > num_blocks:
            raise ValueError(
                f"num_layers={num_layers}, but this backbone has only {num_blocks} blocks; set "
                "optim_wrapper.paramwise_cfg.num_layers=None for a layer per block"
            )
        # The stem has the depth 0.
        layer_id = (depth - 1) * num_layers // num_blocks + 1 if depth else 0
        return min(layer_id, num_layers + 1), num_layers + 1


def _depth_counters(model: nn.Module) -> dict[str, Any]:
    """Find the modules that tell depths, by the prefix of their parameters' names."""
    found = {
        f"{name}." if name else "": module
        for name, module in model.named_modules()
        if callable(getattr(module, "get_layer_depth", None))
    }
    if not found:
        raise TypeError(
            f"layer-wise decay: no module of this {type(model).__name__} has "
            "get_layer_depth(param_name, prefix); take a backbone that has it (VanillaNet, some of "
            "MMPretrain's), or remove constructor and paramwise_cfg from optim_wrapper"
        )
    # MMPretrain's ImageClassifier has the method too, but only calls that of its backbone.
    outer = {a for a in found for b in found if a != b and b.startswith(a)}
    return {prefix: module for prefix, module in found.items() if prefix not in outer}


# MMPose puts one of its own under the same name.
if _NAME not in OPTIM_WRAPPER_CONSTRUCTORS.module_dict:
    OPTIM_WRAPPER_CONSTRUCTORS.register_module(_NAME, module=LayerDecayOptimWrapperConstructor)
