"""Compare what a file computes in its runtime with PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmvanilla.deploy.runner_runtimes import RunFile, last_line
from mmvanilla.utils.numerics import largest, relative_difference


def random_images(shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw standard normal float32 values, as in normalised images; a seed fixes them."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compared_shapes(
    channels: int, size: tuple[int, int], dynamic: bool
) -> tuple[tuple[int, ...], ...]:
    """Choose input shapes, (N, C, H, W), around a height and width in pixels to compare on."""
    height, width = size
    shapes = [(1, channels, height, width), (3, channels, height, width)]
    if dynamic:
        shapes.append((2, channels, height + 32, max(32, width - 32)))
        shapes.append((1, channels, height + 19, width + 45))
    return tuple(shapes)


@torch.no_grad()
def compare_with_torch(
    run: RunFile, reference: Callable[[Tensor], object], shapes: Sequence[tuple[int, ...]]
) -> float:
    """Run a file in its runtime and a model in PyTorch on random inputs of these shapes.

    Returns:
        The largest difference of any output, relative to that output's largest magnitude; NaN if
        either side gives NaN.

    Raises:
        RuntimeError: The runtime cannot run one of the inputs, or gives outputs of other shapes.
    """
    differences = []
    for seed, shape in enumerate(shapes):
        images = random_images(shape, seed)
        expected = reference(images)
        tensors = [expected] if isinstance(expected, Tensor) else list(expected)  # type: ignore[call-overload]
        try:
            found = run(images.numpy())
        except Exception as error:  # the runtimes' errors have no common class
            raise RuntimeError(f"an input of {shape} cannot be run: {last_line(error)}") from error
        shapes_of = [[tuple(each.shape) for each in side] for side in (tensors, found)]
        if shapes_of[0] != shapes_of[1]:
            raise RuntimeError(f"outputs have shapes {shapes_of[1]}, PyTorch's {shapes_of[0]}")
        differences += [relative_difference(*pair) for pair in zip(tensors, found, strict=True)]
    return largest(differences)
