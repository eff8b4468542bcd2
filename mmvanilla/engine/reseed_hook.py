"""Make random numbers independent of interruptions of the training."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop


@HOOKS.register_module()
class ReseedHook(Hook):
    """Makes a resumed run draw the same random numbers as a run without interruption.

    Checkpoints of mmengine hold no states of random number generators. With this hook each epoch
    (or each iteration, in a loop that counts iterations) starts from a seed that is computed from
    the run's seed, the number of the epoch or iteration, and the rank. On CPUs, whose kernels are
    deterministic, a resumed run then gives the same weights bit by bit.

    It needs ``randomness=dict(seed=...)``, and ``num_workers=0`` or, in a loop that counts epochs,
    ``persistent_workers=False``: mmengine then seeds new workers for each epoch. In the other loop
    the augmentations must draw from numpy or random, as those of OpenMMLab do.
    """

    priority = "VERY_HIGH"  # before every hook that may draw random numbers

    def before_train(self, runner: Any) -> None:
        """Refuse a missing seed, and workers with random states of their own."""
        if runner.cfg.get("randomness", {}).get("seed") is None:
            raise ValueError("ReseedHook needs a fixed seed; add randomness=dict(seed=0)")
        loader = runner.train_dataloader
        self._by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
        if loader.num_workers and (loader.persistent_workers or self._by_iteration):
            remedy = "" if self._by_iteration else ", or persistent_workers=False"
            raise ValueError(
                f"ReseedHook cannot control the random numbers of num_workers={loader.num_workers} "
                f"in a {type(runner.train_loop).__name__}; set num_workers=0{remedy}"
            )
        batches = getattr(runner.train_loop, "dataloader_iterator", None)
        if runner.iter and batches is not None and not hasattr(batches, "skip_iter"):
            # This mmengine reads the batches of earlier iterations again, which draws numbers.
            seed = partial(self._seed, runner, runner.iter)
            runner.train_loop.dataloader_iterator = _seed_behind(batches, runner.iter, seed)

    def before_train_epoch(self, runner: Any) -> None:
        """Seed the epoch or, in a loop that counts iterations, the first batch."""
        self._seed(runner, runner.iter if self._by_iteration else runner.epoch)

    def before_train_iter(self, runner: Any, *batch: Any, **more: Any) -> None:
        """Seed the training step, in a loop that counts iterations."""
        if self._by_iteration:
            # After reading the data: the first iteration creates the data iterator, which draws.
            self._seed(runner, runner.iter, 1)

    def after_train_iter(self, runner: Any, *batch: Any, **more: Any) -> None:
        """Seed the next batch, in a loop that counts iterations."""
        if self._by_iteration:
            self._seed(runner, runner.iter + 1)

    def _seed(self, runner: Any, number: int, part: int = 0) -> None:
        # With numpy's SeedSequence the seeds of neighbouring epochs or iterations are unrelated.
        entropy = [runner.seed, number, part, get_rank()]
        words = np.random.SeedSequence(entropy).generate_state(2)
        seed = int(words[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed((int(words[1]) << 32) | seed)


def _seed_behind(batches: Iterator[Any], skipped: int, seed: Callable[[], None]) -> Iterator[Any]:
    yield from itertools.islice(batches, skipped)
    seed()
    yield from batches
