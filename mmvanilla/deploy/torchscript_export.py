"""Export to TorchScript, for programs in C++ and for PyTorch without OpenMMLab."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor

from mmvanilla.deploy.exporting import Format, Job
from mmvanilla.deploy.verification import RunFile

#: Name of the metadata inside of the file, as JSON; torch.jit.load reads it with ``_extra_files``.
METADATA_FILE = "mmvanilla.json"


def write_torchscript(job: Job, path: Path) -> dict[str, int]:
    """Write a traced model with its metadata; its nodes are not counted."""
    with warnings.catch_warnings(), torch.no_grad():
        # Of shapes that Python looks at, which the comparison judges, and of torch.export.
        warnings.simplefilter("ignore")
        try:
            traced = torch.jit.trace(job.exportable.module, job.example, check_trace=False)
        except Exception as error:  # the tracer's errors have no common class
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RuntimeError(f"torch.jit.trace cannot trace this: {reason}") from error
        torch.jit.save(traced, str(path), _extra_files={METADATA_FILE: json.dumps(job.metadata)})
    return {}


def open_torchscript(path: Path) -> RunFile:
    """Load a file to run it with tensors on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.jit.load(str(path), map_location="cpu")

    @torch.no_grad()
    def run(images: Tensor) -> list[Tensor]:
        outputs = loaded(images)
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)

    return run


TORCHSCRIPT = Format(
    "torchscript",
    ".pt",
    "TorchScript",
    lambda: None,
    write_torchscript,
    open_torchscript,
)
