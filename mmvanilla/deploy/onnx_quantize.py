"""Quantise an ONNX file to int8: static quantisation with ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmvanilla.deploy.exporting import INPUT_NAME
from mmvanilla.deploy.onnx_runtime import require_onnx


def quantize_file(model: str | Path, out: str | Path, images: Iterable[np.ndarray]) -> None:
    """Quantise all layers of an ONNX file to int8, with one weight scale for each channel.

    Args:
        model: Path of the fp32 ``.onnx`` file.
        out: Path of the ``.onnx`` file to write.
        images: Normalised images to calibrate with, each of shape (1, C, H, W).
    """
    require_onnx()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT_NAME: image}

    prepared = Path(out).with_suffix(".prepared.onnx")
    # Symbolic shape inference does not support every dynamic size, and ONNX's own inference is
    # enough. If the optimiser fails, it prints a traceback and continues, so its log is silenced.
    logging.getLogger(quant_pre_process.__module__).setLevel(logging.CRITICAL)
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    prepared.unlink()
