"""Quantise an OpenVINO model to int8, with NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmvanilla.deploy.openvino_runtime import read_metadata, require_openvino, save_model


def quantize_openvino(model: str | Path, out: str | Path, images: Iterable[np.ndarray]) -> None:
    """Quantise all layers of a model to int8, with one weight scale for each channel.

    Args:
        model: Path of the fp32 ``.xml`` file.
        out: Path of the ``.xml`` file to write; its ``.bin`` file is written beside it.
        images: Normalised images to calibrate with, each of shape (1, C, H, W).

    Raises:
        ImportError: OpenVINO or NNCF is not installed.
        ValueError: There is no image.
    """
    require_openvino("nncf")
    import nncf
    import openvino

    samples = list(images)
    if not samples:
        raise ValueError("calibration needs at least one image, found none")
    nncf.set_log_level(logging.ERROR)
    read = openvino.Core().read_model(str(model))
    with contextlib.redirect_stdout(io.StringIO()):  # of its progress bars
        quantized = nncf.quantize(read, nncf.Dataset(samples), subset_size=len(samples))
    save_model(quantized, Path(out), read_metadata(read))
