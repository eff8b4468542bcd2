"""Compare what a file computes in its runtime with PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmvanilla.utils.numerics import largest, relative_difference

#: Runs an exported file: from images, (N, C, H, W) float32, to all outputs in their order.
RunFile = Callable[[Tensor], Sequence[Tensor]]


def random_images(shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw standard normal float32 values, as in normalised images; a seed fixes them."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compared_shapes(
    in_channels: int, size: tuple[int, int], dynamic: bool, multiple: int = 1
) -> tuple[tuple[int, ...], ...]:
    """Choose input shapes to compare on: two batch sizes and, if ``dynamic``, several sizes.

    Args:
        in_channels: Number of channels of an image.
        size: Height and width in pixels that the file was exported with.
        dynamic: Whether the file accepts other heights and widths, too.
        multiple: Number of pixels of which heights and widths must be multiples, twice or more.
            Default: 1.

    Returns:
        Input shapes, each as (N, C, H, W).
    """
    height, width = size
    shapes = [(1, in_channels, height, width), (3, in_channels, height, width)]
    if dynamic:
        others = [(2, height + 32, max(32, width - 32)), (1, height + 19, width + 45)]
        for batch, *sides in others:
            tiles = [max(-(-side // multiple), 2) for side in sides]
            shapes.append((batch, in_channels, tiles[0] * multiple, tiles[1] * multiple))
    return tuple(shapes)


def compare_with_torch(
    run: RunFile, module: nn.Module, shapes: Sequence[tuple[int, ...]], runtime: str
) -> float:
    """Run a file in its runtime and a module in PyTorch on the same random inputs.

    Args:
        run: Function that runs the file.
        module: Module that maps one tensor to one or several tensors.
        shapes: Input shapes, each as (N, C, H, W).
        runtime: Name of the runtime, for messages.

    Returns:
        The largest difference of any output, relative to that output's largest magnitude; NaN if
        either side gives NaN.

    Raises:
        RuntimeError: The runtime cannot run the file on one of the shapes, or gives outputs of
            other shapes.
    """
    differences = []
    for seed, shape in enumerate(shapes):
        images = random_images(shape, seed)
        with torch.no_grad():
            outputs = module(images)
        expected = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        try:
            found = run(images)
        except Exception as error:  # the runtimes' errors have no common class
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RuntimeError(f"{runtime} cannot run an input of {shape}: {reason}") from error
        for ours, theirs in zip(expected, found, strict=True):
            if ours.shape != theirs.shape:
                raise RuntimeError(
                    f"{runtime}'s output for an input of {shape} has shape {tuple(theirs.shape)}, "
                    f"PyTorch's {tuple(ours.shape)}"
                )
            differences.append(relative_difference(ours, theirs))
    return largest(differences)


def require_agreement(difference: float, tolerance: float, runtime: str) -> None:
    """Refuse a file whose outputs differ too much.

    Args:
        difference: Result of :func:`compare_with_torch`.
        tolerance: Largest difference allowed, relative to each output's maximum.
        runtime: Name of the runtime, for messages.

    Raises:
        RuntimeError: The difference is NaN, or larger than the tolerance.
    """
    if math.isnan(difference):
        raise RuntimeError(
            f"an output holds NaN, so PyTorch and {runtime} cannot be compared, and nothing was "
            "written; check for NaN or overflow in the model's weights"
        )
    if not difference <= tolerance:  # written with `not` so that a tolerance of NaN fails
        raise RuntimeError(
            f"{runtime}'s outputs differ from PyTorch's by {difference:.2g} of their "
            f"maximum, more than {tolerance:g}; nothing was written"
        )
