"""Scale learning rates by the square root of the batch size, as LAMB recipes do."""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner


@RUNNERS.register_module()
class SqrtLRRunner(Runner):
    """A Runner that scales learning rates with sqrt(batch / base batch), not with their ratio.

    Set ``runner_type='SqrtLRRunner'`` and ``auto_scale_lr=dict(base_batch_size=...)`` in a config;
    the training tools of OpenMMLab then use this runner, and ``--auto-scale-lr`` enables scaling.
    """

    def scale_lr(
        self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None
    ) -> None:
        """Scale the learning rates if ``auto_scale_lr`` enables it.

        Args:
            optim_wrapper: The optimiser wrapper whose learning rates are scaled.
            auto_scale_lr: The config's dict of ``base_batch_size`` and ``enable``. None: nothing
                is scaled.
        """
        if not (auto_scale_lr or {}).get("enable"):
            return
        assert auto_scale_lr is not None
        loader = self._train_dataloader
        per_process = loader["batch_size"] if isinstance(loader, dict) else loader.batch_size
        batch_size = per_process * self.world_size
        # mmengine multiplies by batch / base; this base makes the factor sqrt(batch /
        # base_batch_size).
        base = math.sqrt(batch_size * auto_scale_lr["base_batch_size"])
        super().scale_lr(optim_wrapper, dict(auto_scale_lr, base_batch_size=base))
        self.logger.info(
            f"that is sqrt({batch_size} / {auto_scale_lr['base_batch_size']}), the square root of "
            "the batch size over the config's base_batch_size"
        )
