"""Export with torch.export, for AOTInductor and ExecuTorch."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmvanilla.deploy.exporting import Format, Job
from mmvanilla.deploy.torchscript_export import METADATA_FILE
from mmvanilla.deploy.verification import RunFile

#: Height and width must be multiples of this many pixels, and at least twice as many.
MULTIPLE = 32
_MOST_TILES = 1024


def _require() -> None:
    if not hasattr(torch.export, "Dim") or not hasattr(torch.export.Dim, "DYNAMIC"):
        raise ImportError(
            f"torch {torch.__version__} has no torch.export with open sizes, which came with 2.6; "
            "install a newer torch, or choose another format"
        )


def write_torch_export(job: Job, path: Path) -> dict[str, int]:
    """Write an exported program with its metadata, and count its operators by name."""
    axes: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    if job.dynamic:
        # Pooling guards the file against sizes that leave another remainder than the traced one,
        # and other layers against maps of a single pixel.
        tiles = (torch.export.Dim(name, min=2, max=_MOST_TILES) for name in ("rows", "columns"))
        axes[2], axes[3] = (MULTIPLE * count for count in tiles)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(
                job.exportable.module, (job.example,), dynamic_shapes=(axes,)
            )
        except Exception as error:  # torch's errors have no common class
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            remedy = "; try --fixed-size, or another format" if job.dynamic else ""
            raise RuntimeError(f"torch.export cannot export this: {reason}{remedy}") from error
        torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(job.metadata)})
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    return dict(Counter(getattr(node.target, "__name__", str(node.target)) for node in nodes))


def open_torch_export(path: Path) -> RunFile:
    """Load a file to run it with tensors on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.export.load(path).module()

    @torch.no_grad()
    def run(images: Tensor) -> list[Tensor]:
        outputs = loaded(images)
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)

    return run


TORCH_EXPORT = Format(
    "torch_export",
    ".pt2",
    "torch.export",
    _require,
    write_torch_export,
    open_torch_export,
    multiple=MULTIPLE,
)
