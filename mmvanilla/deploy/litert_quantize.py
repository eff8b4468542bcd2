"""Quantise a LiteRT model to int8, with AI Edge Quantizer."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np


def quantize_litert(
    model: Path,
    out: Path,
    images: Iterable[np.ndarray],
    *,
    per_channel: bool = True,
    keep_float: Sequence[str] = (),
) -> None:
    """Quantise a ``.tflite`` file as ``quantize_onnx`` does; ``keep_float`` must be empty."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import Quantizer, recipe

    if keep_float:
        raise ValueError("no layer of a .tflite file can stay in fp32; leave --keep-float out")
    steps = recipe.static_wi8_ai8()
    for step in steps if not per_channel else ():
        step["op_config"]["weight_tensor_config"]["granularity"] = "TENSORWISE"
    for end in ("INPUT", "OUTPUT"):
        steps.append(dict(regex=".*", operation=end, algorithm_key="no_quantize"))
    ((signature, ends),) = Interpreter(str(model)).get_signature_list().items()
    quantizer = Quantizer(str(model), steps)
    ranges = quantizer.calibrate({signature: [{ends["inputs"][0]: image} for image in images]})
    quantizer.quantize(ranges, str(out), enable_progress_bar=False, enable_progress_report=False)
    shutil.copy(model.with_suffix(".json"), out.with_suffix(".json"))
