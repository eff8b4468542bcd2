"""Quantise an OpenVINO model to int8, with NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mmvanilla.deploy.openvino_runtime import read_metadata, require_openvino, save_model


def quantize_openvino(
    model: str | Path,
    out: str | Path,
    images: Iterable[np.ndarray],
    *,
    keep_float: Sequence[str] = (),
) -> None:
    """Quantise the layers of a model to int8, with one weight scale for each channel.

    Args:
        model: Path of the fp32 ``.xml`` file.
        out: Path of the ``.xml`` file to write; its ``.bin`` file is written beside it.
        images: Normalised images to calibrate with, each of shape (1, C, H, W).
        keep_float: Names of layers to leave in fp32.

    Raises:
        ImportError: OpenVINO or NNCF is not installed.
        ValueError: There is no image, or the model has no layer of such a name.
    """
    require_openvino("nncf")
    import nncf
    import openvino

    samples = list(images)
    if not samples:
        raise ValueError("calibration needs at least one image, found none")
    nncf.set_log_level(logging.ERROR)
    read = openvino.Core().read_model(str(model))
    layers = ("Convolution", "GroupConvolution", "MatMul")
    known = [op.get_friendly_name() for op in read.get_ops() if op.get_type_name() in layers]
    for name in keep_float:
        if name not in known:
            raise ValueError(f"{model} has no layer {name!r}; choose from {', '.join(known)}")
    ignored = nncf.IgnoredScope(names=list(keep_float)) if keep_float else None
    with contextlib.redirect_stdout(io.StringIO()):  # of its progress bars
        quantized = nncf.quantize(
            read, nncf.Dataset(samples), subset_size=len(samples), ignored_scope=ignored
        )
    save_model(quantized, Path(out), read_metadata(read))
