"""Random numbers that do not depend on whether a training was interrupted."""

from __future__ import annotations

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
    """Makes an interrupted and resumed run draw the numbers of an uninterrupted one.

    Checkpoints of mmengine hold no states of random number generators: after a resume, dropout,
    mixup and the pipeline's augmentations start over, and the weights come out different. With this
    hook each epoch (each iteration, in a loop that counts those) begins from a seed made of the
    run's seed, its own number and the rank. On CPU, where the kernels are deterministic, resuming
    then gives the same weights bit for bit.

    It needs ``randomness=dict(seed=...)``, and a train dataloader whose random numbers it reaches:
    ``num_workers=0``, or in a loop that counts epochs ``persistent_workers=False``, whose workers
    are started and seeded anew by mmengine for each epoch. In a loop that counts iterations the
    augmentations must draw from numpy or random, as those of OpenMMLab do.
    """

    # Before every hook that might draw numbers.
    priority = "VERY_HIGH"

    def before_train(self, runner: Any) -> None:
        """Refuse settings under which the promise would not hold.

        Raises:
            ValueError: The seed is missing, or the dataloader keeps random states of its own.
        """
        if runner.cfg.get("randomness", {}).get("seed") is None:
            raise ValueError("ReseedHook needs a fixed seed: randomness=dict(seed=0)")
        loader = runner.train_dataloader
        self._by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
        if loader.num_workers and (loader.persistent_workers or self._by_iteration):
            raise ValueError(
                f"ReseedHook cannot reach the random numbers of num_workers={loader.num_workers} "
                f"with persistent_workers={loader.persistent_workers} in a "
                f"{type(runner.train_loop).__name__}; set num_workers=0"
                + ("" if self._by_iteration else ", or persistent_workers=False")
            )
        loop = runner.train_loop
        if (
            self._by_iteration
            and runner.iter
            and not hasattr(loop.dataloader_iterator, "skip_iter")
        ):
            # This mmengine reads the data of the earlier iterations again, which draws numbers.
            loop.dataloader_iterator = _ReseedAfterSkipped(
                loop.dataloader_iterator, runner.iter, partial(self._seed, runner, runner.iter)
            )

    def before_train_epoch(self, runner: Any) -> None:
        """Seed the epoch, or the data of the first iteration."""
        self._seed(runner, runner.iter if self._by_iteration else runner.epoch)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the step, in a loop that counts iterations."""
        if self._by_iteration:
            # Again after the data was read: the first iteration of a run makes the iterator, which
            # draws from torch.
            self._seed(runner, runner.iter, 1)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Seed the data of the next iteration, in a loop that counts those."""
        if self._by_iteration:
            self._seed(runner, runner.iter + 1)

    def _seed(self, runner: Any, number: int, part: int = 0) -> None:
        # A sequence of numbers seeds numpy's SeedSequence: neighbours have nothing in common.
        entropy = [runner.seed, number, part, get_rank()]
        words = np.random.SeedSequence(entropy).generate_state(2)
        seed = int(words[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed((int(words[1]) << 32) | seed)


class _ReseedAfterSkipped:
    """Iterates over batches, and reseeds right after the skipped ones."""

    def __init__(self, batches: Iterator[Any], skipped: int, seed: Callable[[], None]) -> None:
        self._batches, self._to_skip, self._seed = batches, skipped, seed

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._to_skip == 0:
            self._seed()
        self._to_skip -= 1
        return next(self._batches)
