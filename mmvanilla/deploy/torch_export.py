"""Export with torch.export, for AOTInductor and ExecuTorch."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from mmvanilla.deploy.exporting import Format, Job
from mmvanilla.deploy.torchscript_export import METADATA_FILE
from mmvanilla.deploy.verification import RunFile


def _require() -> None:
    if not hasattr(torch.export, "Dim") or not hasattr(torch.export.Dim, "DYNAMIC"):
        raise ImportError(
            f"torch {torch.__version__} has no torch.export with open sizes, which came with 2.6; "
            "install a newer torch, or choose another format"
        )


def write_torch_export(job: Job, path: Path) -> dict[str, int]:
    """Write an exported program with its metadata, and count its operators by name."""
    auto = torch.export.Dim.DYNAMIC
    axes = {0: auto, 2: auto, 3: auto} if job.dynamic else {0: auto}
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
    "torch_export", ".pt2", "torch.export", _require, write_torch_export, open_torch_export
)
