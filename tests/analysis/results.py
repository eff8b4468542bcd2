"""Results of trainings that never were, for tests."""

from __future__ import annotations

from mmvanilla.analysis.train_and_compare import Result


def made_up_result(
    trained: dict[str, float], fused: dict[str, float] | None, parameters: int = 1000
) -> Result:
    """A result with these metrics, of a network with 3 layers to fuse and made-up sizes."""
    return Result(trained, fused, 3, parameters, 2_000_000, 500_000, [28, 28], 1.0, 2.0)
