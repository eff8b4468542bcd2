"""Merge the pairs of the model that a Runner trains, with all that depends on its parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container
from itertools import compress
from typing import Any

from mmengine.dist import broadcast
from mmengine.hooks import EMAHook
from mmengine.model import BaseAveragedModel, is_model_wrapper
from torch import compiler, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mmvanilla.engine.channels_last import ChannelsLastHook, rebind, to_channels_last, wrap_again
from mmvanilla.models.act_lambda import set_act_lambda
from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.merging import adopt_single_form, merge_pairs


def check_merging(runner: Any) -> None:
    """Refuse at the start of a training what could not be merged in its course.

    Raises:
        RuntimeError, TypeError: As :func:`mmvanilla.models.merging.merge_pairs`; or the model's
            wrapper, the optimiser, a schedule or an average cannot be changed.
    """
    wrapped = is_model_wrapper(runner.model)
    if wrapped and not isinstance(runner.model, DistributedDataParallel):
        raise TypeError(f"merge=True does not work in a {type(runner.model).__name__}")
    optimizer = getattr(runner.optim_wrapper, "optimizer", None)
    if optimizer is None or hasattr(optimizer, "consolidate_state_dict"):
        raise TypeError("merge=True needs one optimiser, the whole of it in each process")
    if not all(hasattr(each, "base_values") for each in runner.param_schedulers or ()):
        raise TypeError("merge=True does not work with schedules that depend on a metric")
    averages = (each for each in runner.model.modules() if isinstance(each, BaseAveragedModel))
    kinds = (kind.__name__ for hook in runner.hooks for kind in type(hook).__mro__)
    if any(averages) or "MeanTeacherHook" in kinds:  # each network would find other sizes
        raise TypeError("merge=True knows the averages of EMAHook, none inside the model")
    twin = copy.deepcopy(runner.model.module if wrapped else runner.model)
    set_act_lambda(twin, 1.0)
    merge_pairs(twin)


def merge_in_training(runner: Any) -> int:
    """Merge the pairs of the model and of mmengine's averages; return their number.

    The merged parameters stand where the second convolutions' stood in the groups of the optimiser.
    Their state begins anew: the moments of a product do not follow from those of its factors. The
    first convolutions' parameters leave, and groups that are empty then, which some optimisers do
    not take. Several processes go on with the statistics of the first one, as after resuming.
    """

    def merge(models: list[nn.Module]) -> None:
        scales = None
        for model in models:
            for buffer in model.buffers():
                broadcast(buffer)
            scales = merge_pairs(model, scales)

    return _exchange(runner, merge)


def adopt_in_training(runner: Any, keys: Container[str]) -> int:
    """Give the model the form of merged weights that are about to be loaded, if they are merged."""
    return _exchange(runner, lambda models: [adopt_single_form(each, keys) for each in models])


def _exchange(runner: Any, exchange: Callable[[list[nn.Module]], Any]) -> int:
    """Exchange pairs, and let all that depends on the model's parameters follow."""
    averages = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
    model = getattr(runner.model, "module", runner.model)  # in a wrapper, as that of test-time
    models = [model, *(average.module for average in averages)]
    before = {
        pair: [*pair.first.parameters(), *pair.second.conv.parameters()]
        for pair in model.modules()
        if isinstance(pair, ConvPair)
    }
    exchange(models)
    pairs = before.keys() - {*model.modules()}
    if not pairs:
        return 0
    optimizer = getattr(runner.optim_wrapper, "optimizer", None)
    if isinstance(optimizer, Optimizer):
        changed = {parameter for pair in pairs for parameter in before[pair]}
        for parameter in changed:
            optimizer.state.pop(parameter, None)
        gone = {id(parameter) for parameter in changed} - {id(each) for each in model.parameters()}
        groups = optimizer.param_groups
        for group in groups:
            group["params"] = [each for each in group["params"] if id(each) not in gone]
            if changed.issuperset(group["params"]):
                group.pop("step", None)  # LAMB counts for a group, from the first moments on
        kept = [bool(group["params"]) for group in groups]
        groups[:] = compress(groups, kept)
        for schedule in runner.param_schedulers or ():
            # mmengine's learning rate of the whole model comes last.
            schedule.base_values[:] = compress(schedule.base_values, [*kept, True])
    if any(isinstance(hook, ChannelsLastHook) for hook in runner.hooks):
        for each in models:
            to_channels_last(each)
    for average in averages:
        rebind(average)
    wrap_again(runner)
    if runner.cfg.get("compile"):
        compiler.reset()  # not every version of torch sees that layers were exchanged
    return len(pairs)
