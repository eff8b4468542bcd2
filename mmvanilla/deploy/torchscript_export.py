"""Export to TorchScript, for programs in C++ and for PyTorch without OpenMMLab."""

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

#: Name of the metadata inside of the file, as JSON; torch.jit.load reads it with ``_extra_files``.
METADATA_FILE = "mmvanilla.json"


def write_torchscript(job: Job, path: Path) -> None:
    """Write a traced model with its metadata."""
    traced = torch.jit.trace(job.exportable.module, job.example, check_trace=False)
    torch.jit.save(traced, str(path), _extra_files={METADATA_FILE: json.dumps(job.metadata)})


def run_in_torch(program: Callable[[Tensor], Any]) -> RunFile:
    """Make a function of arrays of a program that torch has loaded."""

    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = program(torch.from_numpy(images))
        return [each.numpy() for each in ([outputs] if isinstance(outputs, Tensor) else outputs)]

    return run


TORCHSCRIPT = Format(
    "torchscript",
    ".pt",
    "TorchScript",
    (),
    write_torchscript,
    lambda path: run_in_torch(torch.jit.load(str(path), map_location="cpu")),
)
