"""The table of the formats that models are exported to."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from mmvanilla.deploy.exporting import Format
from mmvanilla.deploy.onnx_export import ONNX, write_onnx
from mmvanilla.deploy.openvino_export import OPENVINO
from mmvanilla.deploy.torch_export import TORCH_EXPORT
from mmvanilla.deploy.torchscript_export import TORCHSCRIPT

#: All formats by name, in the order of the command line's help.
FORMATS: dict[str, Format] = {
    entry.name: entry for entry in (ONNX, OPENVINO, TORCHSCRIPT, TORCH_EXPORT)
}


def find_format(out: str | Path, name: str | None = None, exporter: str | None = None) -> Format:
    """Find a format by its name, or else by the suffix of the file to write.

    ``exporter`` chooses the one of torch's exporters that writes ONNX.

    Raises:
        ValueError: The suffix is unknown, or an exporter is named for another format than ONNX.
    """
    by_suffix = {entry.suffix: entry for entry in FORMATS.values()}
    if name is None and Path(out).suffix not in by_suffix:
        known = ", ".join(f"{suffix} ({entry.name})" for suffix, entry in by_suffix.items())
        raise ValueError(f"{out} does not tell its format; end it with one of {known}")
    target = by_suffix[Path(out).suffix] if name is None else FORMATS[name]
    if exporter is None:
        return target
    if target is not ONNX:
        raise ValueError(f"an exporter can be chosen for onnx, not for {target.name}; leave it out")
    return replace(ONNX, write=partial(write_onnx, exporter=exporter))
