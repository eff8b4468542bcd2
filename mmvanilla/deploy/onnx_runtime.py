"""Running ONNX files, and comparing what comes out with PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmvanilla.checkpoints.writing import refuse_existing

INPUT_NAME = "input"


def require_onnx() -> None:
    """Check that onnx and onnxruntime are installed.

    Raises:
        ImportError: One is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{error.name} is not installed; run `pip install onnx onnxruntime onnxscript`"
        ) from error


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse a file that cannot be written, before any work is done for it.

    Args:
        out: The ``.onnx`` file to write.
        overwrite: Whether it may exist.

    Raises:
        ValueError: It has another ending.
        FileExistsError: It exists and ``overwrite`` is False.
        IsADirectoryError: It is a folder.
        FileNotFoundError: There is no folder for it.
    """
    if out.suffix != ".onnx":
        raise ValueError(f"the output must be an .onnx file, found {out}")
    refuse_existing(out, overwrite)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent} to write {out.name} into")


def random_images(shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal float32, which is what normalised images look like; always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compared_shapes(
    in_channels: int, size: tuple[int, int], dynamic: bool
) -> tuple[tuple[int, ...], ...]:
    """The inputs to compare on: other batches, and where the size is open odd and oblong ones."""
    height, width = size
    shapes = [(1, in_channels, height, width), (3, in_channels, height, width)]
    if dynamic:
        shapes += [
            (2, in_channels, height + 32, max(32, width - 32)),
            (1, in_channels, height + 19, width + 45),
        ]
    return tuple(shapes)


def compare_with_torch(
    path: str | Path, module: nn.Module, shapes: Sequence[tuple[int, ...]]
) -> float:
    """Run a file in ONNX Runtime on the CPU and a module in PyTorch on the same random inputs.

    Args:
        path: The ``.onnx`` file.
        module: From one tensor to a tuple of tensors.
        shapes: Of the inputs, (N, C, H, W).

    Returns:
        The largest difference of any output, relative to that output's largest magnitude.

    Raises:
        RuntimeError: ONNX Runtime cannot run the file on one of the shapes.
    """
    session = open_session(path)
    differences = []
    for seed, shape in enumerate(shapes):
        images = random_images(shape, seed)
        with torch.no_grad():
            expected = [tensor.numpy() for tensor in module(images)]
        try:
            found = session.run(None, {INPUT_NAME: images.numpy()})
        except Exception as error:  # onnxruntime has a class of its own for each status
            raise RuntimeError(f"ONNX Runtime cannot run an input of {shape}: {error}") from error
        for ours, theirs in zip(expected, found, strict=True):
            if ours.shape != theirs.shape:
                raise RuntimeError(
                    f"ONNX Runtime's output for an input of {shape} has shape {theirs.shape}, "
                    f"PyTorch's {ours.shape}"
                )
            scale = max(float(np.abs(ours).max()), float(np.finfo(np.float32).tiny))
            differences.append(float(np.abs(ours - theirs).max()) / scale)
    # max() would hide a NaN that is not the first.
    return float(np.max(differences))


def open_session(path: str | Path, threads: int = 0, cuda: bool = False) -> Any:
    """An ONNX Runtime session.

    Args:
        path: The ``.onnx`` file.
        threads: Within one operator; 0: as many as ONNX Runtime likes.
        cuda: Ask for a GPU.

    Raises:
        ImportError: onnxruntime is not installed.
        RuntimeError: It cannot load the file, or was built without CUDA.
    """
    require_onnx()
    import onnxruntime

    providers = ["CUDAExecutionProvider"] if cuda else ["CPUExecutionProvider"]
    if cuda and providers[0] not in onnxruntime.get_available_providers():
        raise RuntimeError(
            "this onnxruntime has no CUDAExecutionProvider; install onnxruntime-gpu instead"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised, and need not be printed too
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise RuntimeError(f"ONNX Runtime cannot load {path}: {error}") from error
