"""Export to ExecuTorch with its XNNPACK backend, for phones."""

from __future__ import annotations

from pathlib import Path

import torch

from mmvanilla.deploy.exporting import Format, Job
from mmvanilla.deploy.runner_runtimes import open_executorch


def write_executorch(job: Job, path: Path) -> None:
    """Write a ``.pte`` file for XNNPACK."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(job.exportable.module, (job.example[:1],))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


EXECUTORCH = Format(
    "executorch",
    ".pte",
    "ExecuTorch",
    ("executorch",),
    write_executorch,
    open_executorch,
    companions=(".json",),
    has_open_size=False,
    has_open_batch=False,
)
