"""The table of the formats that models are exported to."""

from __future__ import annotations

from pathlib import Path

from mmvanilla.deploy.exporting import Format
from mmvanilla.deploy.onnx_export import onnx_format
from mmvanilla.deploy.openvino_export import OPENVINO
from mmvanilla.deploy.torch_export import TORCH_EXPORT
from mmvanilla.deploy.torchscript_export import TORCHSCRIPT

#: All formats by name, in the order of the command line's help.
FORMATS: dict[str, Format] = {
    entry.name: entry for entry in (onnx_format(), OPENVINO, TORCHSCRIPT, TORCH_EXPORT)
}


def find_format(out: str | Path, name: str | None = None, exporter: str | None = None) -> Format:
    """Find a format by its name, or by the suffix of the file to write.

    Args:
        out: Path of the file to write.
        name: Name of the format. None: the suffix tells.
        exporter: Name of torch's exporter to ONNX. None: the default one.

    Raises:
        ValueError: The name, suffix or exporter is unknown, or an exporter is named for another
            format than ONNX.
    """
    if name is None:
        suffix = Path(out).suffix
        names = [entry.name for entry in FORMATS.values() if entry.suffix == suffix]
        if not names:
            known = ", ".join(f"{entry.suffix} ({entry.name})" for entry in FORMATS.values())
            raise ValueError(
                f"{out} does not tell its format by its suffix; end it with one of {known}"
            )
        name = names[0]
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}; choose from {', '.join(FORMATS)}")
    if exporter is None:
        return FORMATS[name]
    if name != "onnx":
        raise ValueError(f"an exporter can be chosen for onnx, not for {name}; leave it out")
    return onnx_format(exporter)
