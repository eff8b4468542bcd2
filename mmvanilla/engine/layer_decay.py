"""Layer-wise learning rate decay for any model whose backbone says how deep its parameters lie.

It stands in mmengine's root registry, so that configs of every toolbox find it.
"""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

_OPTIONS = ("decay_rate", "num_layers")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Smaller learning rates nearer to the input: lr × rate^(num_layers + 1 − id).

    The ids run from 0 for what comes before the first block (the stem) to ``num_layers + 1`` for
    what comes after the last (neck and heads, which keep the full learning rate). The backbone
    counts its blocks itself: any module of the model that has
    ``get_layer_depth(param_name, prefix) -> (depth, number of depths)`` is asked, wherever it is,
    as VanillaNet and the backbones of MMPretrain have it. Biases and other 1-d parameters are
    not decayed by the optimiser's weight decay; frozen parameters are left out.

    ``paramwise_cfg`` takes:

    - ``decay_rate``: the rate, above 0 and at most 1.
    - ``num_layers``: the number of layers over which the B blocks are spread evenly; block i has
      id i · num_layers // B + 1. Default: B, a layer per block (i + 1), which None also means. For
      VanillaNet-13 (B = 11), 6 puts two blocks into a layer (i // 2 + 1), as its authors'
      detectors have it.

    Args:
        optim_wrapper_cfg: The optimiser wrapper's config; its optimiser needs an ``lr``.
        paramwise_cfg: The options above.

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
            raise TypeError(
                f"layer-wise decay needs paramwise_cfg=dict(decay_rate=...), found {options!r}"
            )
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise TypeError(
                f"paramwise_cfg of {type(self).__name__} takes {' and '.join(_OPTIONS)}, "
                f"found {', '.join(unknown)}"
            )
        rate, num_layers = options["decay_rate"], options.get("num_layers")
        if not _is_number(rate, (int, float)) or not 0 < rate <= 1:
            raise ValueError(f"decay_rate must be above 0 and at most 1, found {rate!r}")
        if num_layers is not None and (not _is_number(num_layers, int) or num_layers < 1):
            raise ValueError(f"num_layers must be an integer of at least 1, found {num_layers!r}")
        if self.base_lr is None:
            raise ValueError("layer-wise decay scales the optimizer's lr, but its config has none")

    def add_params(
        self, params: list[dict[str, Any]], module: nn.Module, prefix: str = "", **kwargs: Any
    ) -> None:
        """Sort the parameters into one group for each layer and kind (with and without decay).

        Args:
            params: The list to which the groups are appended.
            module: The model.
            prefix: Ignored; DefaultOptimWrapperConstructor has it.
            kwargs: Ignored in the same way.

        Raises:
            TypeError: No module of the model has ``get_layer_depth``.
            ValueError: ``num_layers`` is larger than the number of blocks.
        """
        counters = _depth_counters(module)
        groups: dict[str, dict[str, Any]] = {}
        for name, param in module.named_parameters():
            if not param.requires_grad:
                continue
            layer_id, rest_id = self._layer_id(name, counters)
            decays = param.ndim > 1 and not name.endswith("bias")
            group_name = "rest" if layer_id == rest_id else f"layer_{layer_id}_of_{rest_id - 1}"
            group_name += "" if decays else "_no_decay"
            if group_name not in groups:
                scale = self.paramwise_cfg["decay_rate"] ** (rest_id - layer_id)
                group = dict(params=[], group_name=group_name, lr_scale=scale)
                group["lr"] = self.base_lr * scale
                if not decays:
                    group["weight_decay"] = 0.0
                elif self.base_wd is not None:
                    group["weight_decay"] = self.base_wd
                groups[group_name] = group
            groups[group_name]["params"].append(param)
        for group in groups.values():
            print_log(
                f"{group['group_name']}: {len(group['params'])} parameters, lr {group['lr']:.4g}",
                "current",
            )
        params.extend(groups.values())

    def _layer_id(self, name: str, counters: dict[str, Any]) -> tuple[int, int]:
        """A parameter's layer, and the layer of what follows the backbone."""
        prefix = max((p for p in counters if name.startswith(p)), key=len, default=None)
        if prefix is None:
            return 0, 0  # Outside every backbone: the full learning rate whatever num_layers is.
        depth, num_depths = counters[prefix].get_layer_depth(name, prefix)
        num_blocks = num_depths - 2
        num_layers = self.paramwise_cfg.get("num_layers")
        if num_layers is None:  # not given, or taken back by a config that inherits it
            num_layers = num_blocks
        if num_layers > num_blocks:
            raise ValueError(
                f"num_layers={num_layers}, but this backbone has only {num_blocks} blocks to "
                "spread over layers; for a layer per block set "
                "optim_wrapper.paramwise_cfg.num_layers=None (in a config: "
                "optim_wrapper = dict(paramwise_cfg=dict(num_layers=None)))"
            )
        rest_id = num_layers + 1
        if depth == 0:
            return 0, rest_id
        return min((depth - 1) * num_layers // num_blocks + 1, rest_id), rest_id


def _depth_counters(model: nn.Module) -> dict[str, Any]:
    """The modules that count depths, by the prefix of their parameters' names."""
    found = {
        f"{name}." if name else "": module
        for name, module in model.named_modules()
        if callable(getattr(module, "get_layer_depth", None))
    }
    if not found:
        raise TypeError(
            f"layer-wise decay asks the backbone how deep each parameter lies, but no module of "
            f"this {type(model).__name__} has get_layer_depth(param_name, prefix); take a backbone "
            "that has it (VanillaNet, most of MMPretrain's), or drop the optim_wrapper's "
            "constructor and paramwise_cfg"
        )
    # MMPretrain's ImageClassifier has the method too, and only hands it to its backbone.
    return {
        prefix: module
        for prefix, module in found.items()
        if not any(other != prefix and other.startswith(prefix) for other in found)
    }


def _is_number(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
