"""Export to ExecuTorch with its XNNPACK backend, for phones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmvanilla.deploy.exporting import Format, Job
from mmvanilla.deploy.ncnn_export import write_beside
from mmvanilla.deploy.runner_runtimes import open_executorch


def write_executorch(job: Job, path: Path) -> None:
    """Write a ``.pte`` file, and the metadata in a ``.json`` file."""
    save_program(torch.export.export(job.exportable.module, (job.example[:1],)), path)
    write_beside(path, job.metadata)


def save_program(program: Any, path: Path) -> None:
    """Write an exported program for XNNPACK."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


EXECUTORCH = Format(
    "executorch",
    ".pte",
    "ExecuTorch",
    ("executorch",),
    write_executorch,
    lambda path: open_executorch(path)[0],
    companions=(".json",),
    has_open_size=False,
    has_open_batch=False,
)
