"""The table of the formats that models are exported to."""

from __future__ import annotations

from pathlib import Path

from mmvanilla.deploy.exporting import Format
from mmvanilla.deploy.formats.executorch import EXECUTORCH
from mmvanilla.deploy.formats.litert import LITERT
from mmvanilla.deploy.formats.ncnn import NCNN
from mmvanilla.deploy.formats.onnx import ONNX
from mmvanilla.deploy.formats.openvino import OPENVINO
from mmvanilla.deploy.formats.torch import TORCH_EXPORT, TORCHSCRIPT

#: All formats by name, in the order of the command line's help.
FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (ONNX, OPENVINO, TORCHSCRIPT, TORCH_EXPORT, NCNN, LITERT, EXECUTORCH)
}


def find_format(out: str | Path) -> Format:
    """Find a format by the suffix of a file (a ValueError if unknown)."""
    by_suffix = {entry.suffix: entry for entry in FORMATS.values()}
    if Path(out).suffix not in by_suffix:
        known = ", ".join(f"{suffix} ({entry.name})" for suffix, entry in by_suffix.items())
        raise ValueError(f"{out} does not tell its format; end it with one of {known}")
    return by_suffix[Path(out).suffix]
