"""TorchScript, for C++, and torch.export, for AOTInductor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmvanilla.deploy.exporting import Format, Job
from mmvanilla.deploy.runner_runtimes import RunFile

#: An extra file of torch's, inside of the file.
METADATA_FILE = "mmvanilla.json"


def _write_torchscript(job: Job, path: Path) -> None:
    traced = torch.jit.trace(job.exportable.module, job.example, check_trace=False)
    torch.jit.save(traced, str(path), _extra_files={METADATA_FILE: json.dumps(job.metadata)})


def _write_program(job: Job, path: Path) -> None:
    axes = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(job.exportable.module, (job.example,), dynamic_shapes=(axes,))
    torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(job.metadata)})


def _opened(program: Callable[[Tensor], Any]) -> tuple[RunFile, dict[str, str]]:
    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = program(torch.from_numpy(images))
        return [each.numpy() for each in ([outputs] if isinstance(outputs, Tensor) else outputs)]

    return run, {}


TORCHSCRIPT = Format(
    "torchscript",
    ".pt",
    "TorchScript",
    (),
    _write_torchscript,
    lambda path: _opened(torch.jit.load(str(path), map_location="cpu")),
)
TORCH_EXPORT = Format(
    "torch_export",
    ".pt2",
    "torch.export",
    (),
    _write_program,
    lambda path: _opened(torch.export.load(path).module()),
    has_open_size=False,  # pooling guards a file against sizes with another remainder
)
