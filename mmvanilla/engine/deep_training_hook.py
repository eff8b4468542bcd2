"""The hook that raises λ during deep training (paper, section 3.1).

λ (``act_lambda``) is one number for the whole model. It starts at 0, where the activation inside
each :class:`mmvanilla.models.conv_pair.ConvPair` is a ReLU, and ends at 1, where it is the identity
and the pair can be fused.
"""

from __future__ import annotations

from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop

from mmvanilla.engine.merging import adopt_in_training, check_merging, merge_in_training
from mmvanilla.models.act_lambda import SCHEDULES, set_act_lambda

_LOG_NAME = "train/act_lambda"  # LoggerHook prints every scalar whose name begins with train/
_SETTINGS = "deep_training"  # in mmengine's message hub, which checkpoints hold


@HOOKS.register_module()
class DeepTrainingHook(Hook):
    """Raises λ from 0 to 1 during training, then keeps it at 1.

    λ depends only on the number of the epoch or iteration, so a resumed run continues as if it had
    not been interrupted, and the λ of loaded weights has no effect. The averaged model of an
    ``EMAHook`` gets the same λ; for averages that something else than mmengine keeps, call
    :func:`mmvanilla.set_act_lambda` before they are used. λ is logged with the losses, as
    ``act_lambda``.

    Fine-tuning needs no hook, since λ is 1 from the start, unless the weights come from the middle
    of deep training: then ``decay_epochs=0`` sets their λ to 1.

    Args:
        decay_epochs: Number of epochs until λ = 1, E. In epoch e, counted from 0, a linear schedule
            has λ = e / E, so epoch E is the first one with λ = 1. 0: λ is 1 from the start.
        decay_iters: Number of iterations until λ = 1, for loops that count iterations. Give either
            this or ``decay_epochs``.
        schedule: Name of the schedule, ``'linear'`` (default) or ``'cosine'``.
        by_epoch: Whether λ changes once per epoch, as in the authors' code, or in every iteration.
            None (default): once per epoch with ``decay_epochs``, in every iteration with
            ``decay_iters``, which allows nothing else.
        begin: Number of epochs, or with ``decay_iters`` of iterations, during which λ stays 0
            before it begins to rise; λ is 1 after ``begin`` and the decay together. Default: 0.
        merge: Whether each pair becomes a single convolution, exact in eval mode, as soon as λ is
            1: the model is then one with ``deep_training=False``, whose checkpoints load in configs
            of both kinds. Default: False.

    Raises:
        TypeError: A length is not a whole number.
        ValueError: Both lengths are given, or neither; a length or ``begin`` is negative; the
            schedule is unknown; or ``by_epoch`` is True with ``decay_iters``.

    Examples:
        >>> custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=100)]
        >>> custom_hooks = [dict(type="DeepTrainingHook", begin=50, decay_epochs=100)]
    """

    # Before hooks that load, or compare, what depends on the model's structure.
    priority = "HIGH"

    def __init__(
        self,
        decay_epochs: int | None = None,
        decay_iters: int | None = None,
        schedule: str = "linear",
        by_epoch: bool | None = None,
        begin: int = 0,
        merge: bool = False,
    ) -> None:
        if (decay_epochs is None) == (decay_iters is None):
            raise ValueError(
                "DeepTrainingHook takes one of decay_epochs and decay_iters, found "
                f"decay_epochs={decay_epochs} and decay_iters={decay_iters}"
            )
        lengths = dict(decay_epochs=decay_epochs or 0, decay_iters=decay_iters or 0, begin=begin)
        for name, length in lengths.items():
            if not isinstance(length, int) or isinstance(length, bool):
                raise TypeError(f"{name} must be a whole number, found {length!r}")
            if length < 0:
                raise ValueError(f"{name} must be at least 0, found {length}")
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, found {schedule!r}")
        if by_epoch and decay_iters is not None:
            raise ValueError(
                "decay_iters changes λ in every iteration, found by_epoch=True; to change λ once "
                "per epoch, give decay_epochs instead"
            )
        self.decay_epochs, self.decay_iters = decay_epochs, decay_iters
        self.schedule, self.begin, self.merge = schedule, begin, merge
        self.by_epoch = decay_iters is None if by_epoch is None else by_epoch
        self._settings = dict(vars(self))
        self._counts_parts = decay_iters is None and not self.by_epoch
        self._current: float | None = None
        self._is_merged = False

    def before_train(self, runner: Any) -> None:
        """Set λ for the epoch or iteration at which the run starts or resumes.

        Raises:
            RuntimeError: No module of the model has a λ, or the pairs cannot be merged; or the
                Runner's ``efficient_conv_bn_eval`` is on, which keeps the graph of a single λ.
            TypeError: As above, see :func:`mmvanilla.engine.merging.check_merging`.
            ValueError: Epochs are given, but the loop counts iterations.
        """
        counted = self.decay_epochs is not None and (self.decay_epochs or self.begin)
        if counted and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(
                f"decay_epochs={self.decay_epochs}, but this training counts iterations "
                "(IterBasedTrainLoop has one epoch only); give decay_iters"
            )
        runner.message_hub.update_info(_SETTINGS, self._settings)  # for who resumes from it
        start = self._lambda_at(runner.epoch, runner.iter)
        if start < 1.0 and runner.cfg.get("efficient_conv_bn_eval"):
            raise RuntimeError("λ cannot change under efficient_conv_bn_eval; leave that out")
        if not self._set(runner, start) and not (self._is_merged and start == 1.0):
            raise RuntimeError(
                f"DeepTrainingHook: no module of {type(runner.model).__name__} has a λ: it is "
                "fused or merged, or was built without pairs of convolutions; leave the hook out, "
                "or take a VanillaNet with deep_training=True or a network with "
                "conv_cfg=dict(type='ConvPair')"
            )
        if self.merge and not self._is_merged:
            check_merging(runner)
        part = 1 / len(runner.train_dataloader) if self._counts_parts else 1
        last = self._lambda_at(runner.max_epochs - part, runner.max_iters - 1)
        if last < 1.0:
            runner.logger.warning(
                f"this training ends at λ = {last:g}, and its model cannot be fused before λ is 1; "
                "train longer, or shorten the decay"
            )

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Give the model the structure of merged weights; refuse to resume where λ would fall.

        Raises:
            ValueError: λ in the checkpoint is larger than where the run would go on.
        """
        weights = checkpoint.get("state_dict", checkpoint)
        adopted = adopt_in_training(runner, weights)
        if adopted:
            runner.logger.info(f"{adopted} pairs of the model are merged, as in these weights")
        # λ is 0 until before_train, so that loading does not warn of a lower one.
        self._is_merged = not self._set(runner, 0.0) and adopted > 0
        meta = checkpoint.get("meta", {})
        if not runner._resume or not {"epoch", "iter"} <= set(meta):
            return
        values = (float(weights[name]) for name in weights if name.endswith("act_lambda"))
        saved = max(values, default=float(self._is_merged))
        start = self._lambda_at(meta["epoch"], meta["iter"])
        info = checkpoint.get("message_hub", {}).get("runtime_info", {})
        # With the same settings, λ falls only within an epoch that was broken off, and begins anew.
        if start < saved - 1e-6 and info.get(_SETTINGS) != self._settings:
            raise ValueError(
                f"λ would fall from {saved:g} to {start:g}: this DeepTrainingHook is longer, or "
                "begins later, than the one that the checkpoint was trained with; give it the "
                "lengths that it had"
            )
        ours, theirs = self._settings.items(), info.get(_SETTINGS, self._settings).items()
        if ours != theirs:
            runner.logger.warning(
                f"resumed with another config: of DeepTrainingHook, {dict(ours - theirs)} is the "
                f"config's, not the checkpoint's {dict(theirs - ours)}"
            )

    def before_train_epoch(self, runner: Any) -> None:
        """Set λ for this epoch."""
        self._set(runner, self._lambda_at(runner.epoch, runner.iter))

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set λ for this iteration, unless λ changes once per epoch; log it; merge in time."""
        if not self.by_epoch:
            part = batch_idx / len(runner.train_dataloader) if self._counts_parts else 0
            self._set(runner, self._lambda_at(runner.epoch + part, runner.iter))
        # Gradients that are still accumulated would be lost.
        is_due = self.merge and not self._is_merged and self._current == 1.0
        if is_due and runner.optim_wrapper.should_update():
            pairs = merge_in_training(runner)
            self._is_merged = True
            runner.logger.info(
                f"λ is 1: {pairs} pairs of convolutions are merged, and train on as single ones"
            )
        runner.message_hub.update_scalar(_LOG_NAME, self._current)

    def _lambda_at(self, epoch: float, iteration: int) -> float:
        done, length = epoch, self.decay_epochs
        if length is None:
            done, length = iteration, self.decay_iters
        if not length:
            return 0.0 if done < self.begin else 1.0
        return SCHEDULES[self.schedule]((done - self.begin) / length)

    def _set(self, runner: Any, value: float) -> int:
        self._current = value
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                set_act_lambda(hook.ema_model, value)
        return set_act_lambda(runner.model, value)
