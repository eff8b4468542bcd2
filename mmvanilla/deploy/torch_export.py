"""Export with torch.export, for AOTInductor and ExecuTorch."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mmvanilla.deploy.exporting import Format, Job
from mmvanilla.deploy.torchscript_export import METADATA_FILE, run_in_torch


def write_torch_export(job: Job, path: Path) -> None:
    """Write an exported program with its metadata."""
    axes = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(job.exportable.module, (job.example,), dynamic_shapes=(axes,))
    torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(job.metadata)})


TORCH_EXPORT = Format(
    "torch_export",
    ".pt2",
    "torch.export",
    (),
    write_torch_export,
    lambda path: run_in_torch(torch.export.load(path).module()),
    has_open_size=False,  # pooling guards a file against sizes with another remainder
)
