"""Quantise an ONNX file to int8: static quantisation with ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mmvanilla.deploy.exporting import INPUT_NAME


def quantize_onnx(
    model: Path,
    out: Path,
    images: Iterable[np.ndarray],
    *,
    per_channel: bool = True,
    keep_float: Sequence[str] = (),
) -> None:
    """Quantise an ONNX file to int8, calibrated with normalised images, each (1, C, H, W).

    ``per_channel``: whether each channel has a weight scale of its own, or each layer only one.
    ``keep_float``: names of layers to leave in fp32; a name that no layer has is a ValueError.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT_NAME: image}

    nodes = onnx.load(str(model), load_external_data=False).graph.node
    layers = [node.name for node in nodes if node.op_type in ("Conv", "Gemm", "MatMul")]
    check_layers(model, keep_float, layers)
    prepared = out.with_suffix(".prepared.onnx")
    # Symbolic shape inference does not support every dynamic size, and ONNX's own inference is
    # enough. If the optimiser fails, it prints a traceback and continues, so its log is silenced.
    logging.getLogger(quant_pre_process.__module__).setLevel(logging.CRITICAL)
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(out),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=per_channel,
        nodes_to_exclude=list(keep_float),
    )
    prepared.unlink()


def check_layers(model: Path, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise a ValueError that lists the known layers, if a name is not among them."""
    for name in names:
        if name not in known:
            raise ValueError(f"{model} has no layer {name!r}; choose from {', '.join(known)}")
