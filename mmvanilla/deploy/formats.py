"""The table of the formats that models are exported to."""

from __future__ import annotations

from pathlib import Path

from mmvanilla.deploy.executorch_export import EXECUTORCH
from mmvanilla.deploy.exporting import Format
from mmvanilla.deploy.litert_export import LITERT
from mmvanilla.deploy.ncnn_export import NCNN
from mmvanilla.deploy.onnx_export import ONNX
from mmvanilla.deploy.openvino_export import OPENVINO
from mmvanilla.deploy.torch_export import TORCH_EXPORT, TORCHSCRIPT

#: All formats by name, in the order of the command line's help.
FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (ONNX, OPENVINO, TORCHSCRIPT, TORCH_EXPORT, NCNN, LITERT, EXECUTORCH)
}


def find_format(out: str | Path, name: str | None = None) -> Format:
    """Find a format by its name, or else by the suffix of a file (a ValueError if unknown)."""
    if name is not None:
        return FORMATS[name]
    by_suffix = {entry.suffix: entry for entry in FORMATS.values()}
    if Path(out).suffix not in by_suffix:
        known = ", ".join(f"{suffix} ({entry.name})" for suffix, entry in by_suffix.items())
        raise ValueError(f"{out} does not tell its format; end it with one of {known}")
    return by_suffix[Path(out).suffix]
