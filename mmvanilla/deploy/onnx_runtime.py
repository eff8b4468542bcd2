"""Run ONNX files, and compare their outputs with PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmvanilla.checkpoints.writing import StrPath, check_writable
from mmvanilla.utils.numerics import largest, relative_difference

INPUT_NAME = "input"
_CUDA = "CUDAExecutionProvider"


def require_onnx() -> None:
    """Check that onnx and onnxruntime are installed.

    Raises:
        ImportError: One of them is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{error.name} is not installed; run `pip install onnx onnxruntime onnxscript`"
        ) from error


def check_out(out: Path, overwrite: bool, inputs: Iterable[StrPath] = ()) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Args:
        out: Path of the ``.onnx`` file to write.
        overwrite: Whether an existing file may be replaced.
        inputs: Files that the work reads, none of which may be replaced.

    Raises:
        ValueError: The output is not an ``.onnx`` file, or is also an input.
        FileExistsError: The output exists and ``overwrite`` is False.
        IsADirectoryError: The output is a folder.
        FileNotFoundError: The folder of the output does not exist.
        PermissionError: The folder of the output cannot be written to.
    """
    if out.suffix != ".onnx":
        raise ValueError(f"the output must be an .onnx file, found {out}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent} to write {out.name} into; make it first")
    check_writable([out], overwrite, inputs)


def random_images(shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw standard normal float32 values, as in normalised images; a seed fixes them."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compared_shapes(
    in_channels: int, size: tuple[int, int], dynamic: bool
) -> tuple[tuple[int, ...], ...]:
    """Choose input shapes to compare on: two batch sizes and, if ``dynamic``, several sizes.

    Args:
        in_channels: Number of channels of an image.
        size: Height and width in pixels that the file was exported with.
        dynamic: Whether the file accepts other heights and widths, too.

    Returns:
        Input shapes, each as (N, C, H, W).
    """
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
        path: Path of the ``.onnx`` file.
        module: Module that maps one tensor to one or several tensors.
        shapes: Input shapes, each as (N, C, H, W).

    Returns:
        The largest difference of any output, relative to that output's largest magnitude; NaN if
        either side gives NaN.

    Raises:
        RuntimeError: ONNX Runtime cannot run the file on one of the shapes, or gives outputs of
            other shapes.
    """
    session = open_session(path)
    differences = []
    for seed, shape in enumerate(shapes):
        images = random_images(shape, seed)
        with torch.no_grad():
            outputs = module(images)
        expected = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        try:
            found = session.run(None, {INPUT_NAME: images.numpy()})
        except Exception as error:  # onnxruntime's errors have no common class
            raise RuntimeError(f"ONNX Runtime cannot run an input of {shape}: {error}") from error
        for ours, theirs in zip(expected, found, strict=True):
            if tuple(ours.shape) != theirs.shape:
                raise RuntimeError(
                    f"ONNX Runtime's output for an input of {shape} has shape {theirs.shape}, "
                    f"PyTorch's {tuple(ours.shape)}"
                )
            differences.append(relative_difference(ours, theirs))
    return largest(differences)


def open_session(path: str | Path, threads: int = 0, cuda: bool = False, device_id: int = 0) -> Any:
    """Load a file into ONNX Runtime.

    Args:
        path: Path of the ``.onnx`` file.
        threads: Number of threads within one operator. 0 (default): ONNX Runtime chooses.
        cuda: Whether to run on a GPU instead of the CPU. Default: False.
        device_id: Number of the GPU. Default: 0.

    Returns:
        The ``onnxruntime.InferenceSession`` of the file.

    Raises:
        ImportError: onnxruntime is not installed.
        RuntimeError: ONNX Runtime cannot load the file, was built without CUDA, or does not find
            the libraries of CUDA.
    """
    require_onnx()
    import onnxruntime

    providers: list[Any] = ["CPUExecutionProvider"]
    if cuda:
        providers = [(_CUDA, {"device_id": device_id})]
    if cuda and _CUDA not in onnxruntime.get_available_providers():
        raise RuntimeError(
            "this onnxruntime has no CUDAExecutionProvider; install onnxruntime-gpu instead"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised, so they need not be printed
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise RuntimeError(f"ONNX Runtime cannot load {path}: {error}") from error
    # Without the libraries of CUDA it takes the CPU, and only its log says so.
    if cuda and _CUDA not in session.get_providers():
        raise RuntimeError(
            "ONNX Runtime does not find the CUDA and cuDNN libraries that it was built for and "
            "would run on the CPU; install a version of onnxruntime-gpu that fits, or add the "
            "folder of the libraries to LD_LIBRARY_PATH"
        )
    return session
