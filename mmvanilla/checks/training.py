"""Check the settings of a training: layer-wise learning rates, and the schedule of λ."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS
from torch import nn

from mmvanilla.checks.findings import Finding, fault, ok, warning
from mmvanilla.checks.types import type_name, walk
from mmvanilla.engine.deep_training_hook import DeepTrainingHook
from mmvanilla.models.conv_pair import FadingReLU
from mmvanilla.utils.known_errors import explain_known

LAYER_DECAY, LAMBDA = "layer decay", "λ"
_OURS = "LayerDecayOptimWrapperConstructor"


def check_layer_decay(cfg: Config, model: nn.Module) -> list[Finding]:
    """Build the optimiser with its constructor, which asks the backbone for the depth of layers.

    Args:
        cfg: The config.
        model: The model that was built from it, also on the meta device.
    """
    wrapper = cfg.get("optim_wrapper")
    if not isinstance(wrapper, Mapping) or not wrapper.get("constructor"):
        return []
    name = type_name(wrapper["constructor"])
    options = wrapper.get("paramwise_cfg") or {}
    # AmpOptimWrapper refuses CPUs, and only the constructor is of interest.
    plain = {**copy.deepcopy(dict(wrapper)), "type": "OptimWrapper"}
    for key in ("loss_scale", "dtype", "use_fsdp", "cache_enabled"):
        plain.pop(key, None)
    try:
        build_optim_wrapper(model, Config(plain)._cfg_dict)
    except NotImplementedError:
        backbone = type(getattr(model, "backbone", model)).__name__
        return [
            fault(
                LAYER_DECAY,
                f"optim_wrapper.constructor {name} does not know the layers of {backbone}",
                f"set optim_wrapper.constructor='{_OURS}' and "
                "paramwise_cfg=dict(decay_rate=..., num_layers=None)",
                certain=True,
            )
        ]
    except Exception as error:  # whatever a constructor of any origin raises
        text = " ".join(str(error).split())
        known = explain_known(text)
        if known is not None:
            return [fault(LAYER_DECAY, f"optim_wrapper: {known.what}", known.remedy)]
        what, _, remedy = text.partition("; ")
        return [
            fault(
                LAYER_DECAY,
                f"optim_wrapper cannot be built: {what or type(error).__name__}",
                remedy or "correct optim_wrapper",
                certain=name == _OURS,
            )
        ]
    if "decay_rate" not in options:
        return [ok(LAYER_DECAY, f"none; {name} builds the optimiser")]
    layers = options.get("num_layers")
    return [
        ok(
            LAYER_DECAY,
            f"{name}: rate {options['decay_rate']:g}, "
            + (f"{layers} layers" if layers else "a layer for each block"),
        )
    ]


def check_lambda(cfg: Config, model: nn.Module) -> list[Finding]:
    """Check that λ fits the training: from scratch it rises to 1, from trained weights it is 1.

    Args:
        cfg: The config.
        model: The model that was built from it, also on the meta device.
    """
    fading = sum(isinstance(module, FadingReLU) for module in model.modules())
    hooks = [
        hook
        for hook in cfg.get("custom_hooks") or []
        if isinstance(hook, Mapping) and type_name(hook.get("type")) == "DeepTrainingHook"
    ]
    source = _trained_weights(cfg)
    if not hooks:
        if fading and source is None and cfg.get("train_cfg"):
            return [
                warning(
                    LAMBDA,
                    "the model trains from scratch without DeepTrainingHook: λ is 1 throughout, "
                    "and each pair of convolutions is linear",
                    "add custom_hooks=[dict(type='DeepTrainingHook', decay_epochs=...)] (or "
                    "decay_iters), about a third of the training, or name trained weights",
                )
            ]
        return [ok(LAMBDA, "λ = 1 throughout, as for trained weights")] * bool(fading)
    if not fading:
        return [
            fault(
                LAMBDA,
                "DeepTrainingHook is in custom_hooks, but nothing in the model has a λ "
                "(deploy=True or deep_training=False, or another network)",
                "remove the hook, or train the training form (deploy=False), or set "
                "conv_cfg=dict(type='ConvPair') in another network",
                certain=True,
            )
        ]
    try:
        hook = HOOKS.build({**hooks[0], "type": DeepTrainingHook})
    except (TypeError, ValueError) as error:
        known = explain_known(str(error))
        return [
            fault(LAMBDA, str(known.what if known else error), "correct custom_hooks", certain=True)
        ]
    return _check_schedule(cfg, hook, source)


def _check_schedule(cfg: Config, hook: DeepTrainingHook, source: str | None) -> list[Finding]:
    train_cfg = cfg.get("train_cfg") or {}
    epochs, iterations = train_cfg.get("max_epochs"), train_cfg.get("max_iters")
    by_iterations = iterations is not None or "IterBased" in type_name(train_cfg.get("type"))
    starts_at_one = not (hook.begin or hook.decay_epochs or hook.decay_iters)
    if hook.decay_iters is None and not starts_at_one and by_iterations:
        return [
            fault(
                LAMBDA,
                f"decay_epochs={hook.decay_epochs}, but this training counts iterations",
                f"give decay_iters, below max_iters={iterations}",
                certain=True,
            )
        ]
    findings = []
    if source is not None and not starts_at_one:
        findings.append(
            warning(
                LAMBDA,
                f"DeepTrainingHook begins at λ = 0, but the weights of {source} are trained at "
                "λ = 1: their layers would get activations that they never had",
                "remove the hook to fine-tune, or set decay_epochs=0; keep it only for weights "
                "from the middle of deep training",
            )
        )
    decay, length, unit = hook.decay_epochs, epochs, "epochs"
    if hook.decay_iters is not None:
        decay, length, unit = hook.decay_iters, iterations if by_iterations else None, "iters"
    assert decay is not None
    end = hook.begin + decay
    if isinstance(length, int) and end and end >= length:
        before = f"begin={hook.begin}, " if hook.begin else ""
        both = f"begin + decay_{unit}" if hook.begin else f"decay_{unit}"
        findings.append(
            fault(
                LAMBDA,
                f"{before}decay_{unit}={decay} and max_{unit}={length}: the training ends before "
                "λ is 1, and its model cannot be fused",
                f"set {both} below max_{unit}, about a third of it",
            )
        )
    return findings or [ok(LAMBDA, f"rises to 1 within {end} of {length or '?'} {unit}")]


def _trained_weights(cfg: Config) -> str | None:
    """Return the address of the weights that a training starts from; None from scratch."""
    if cfg.get("load_from"):
        return str(cfg.load_from)
    if cfg.get("resume"):
        return "the resumed checkpoint"
    for node in walk(cfg.get("model")):
        if type_name(node.get("type")) in ("Pretrained", "PretrainedInit"):
            return str(node.get("checkpoint"))
    return None
