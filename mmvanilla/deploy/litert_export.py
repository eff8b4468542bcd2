"""Export to LiteRT (TensorFlow Lite), for Android and microcontrollers."""

from __future__ import annotations

from pathlib import Path

from mmvanilla.deploy.exporting import Format, Job
from mmvanilla.deploy.runner_runtimes import open_litert


def write_litert(job: Job, path: Path) -> None:
    """Write a ``.tflite`` file."""
    import litert_torch

    litert_torch.convert(job.exportable.module, (job.example[:1],)).export(str(path))


LITERT = Format(
    "litert",
    ".tflite",
    "LiteRT",
    ("litert_torch", "ai_edge_litert"),
    write_litert,
    open_litert,
    companions=(".json",),
    has_open_size=False,
    has_open_batch=False,
)
