"""ExecuTorch with its XNNPACK backend, for phones; int8 by torchao."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmvanilla.deploy.exporting import Format, Job, QuantizeJob
from mmvanilla.deploy.formats.torch import METADATA_FILE
from mmvanilla.deploy.runner_runtimes import open_executorch


def write_executorch(job: Job, path: Path) -> None:
    """Write a ``.pte`` file."""
    write_program(job.exportable.module, job.example[:1], path)


def write_program(module: Any, image: Tensor, path: Path) -> None:
    """Write a module that takes such an image, (1, C, H, W), as a ``.pte`` file for XNNPACK."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(module, (image,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


def quantize_executorch(job: QuantizeJob, path: Path) -> None:
    """Make an int8 file of a ``.pt2`` file; ``keep_float`` must be empty."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    job.check_layers()  # none can be chosen
    files = {METADATA_FILE: ""}
    program = torch.export.load(job.model, extra_files=files).module()
    scheme = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=job.per_channel)
    prepared = prepare_pt2e(program, xnnpack_quantizer.XNNPACKQuantizer().set_global(scheme))
    samples = [torch.from_numpy(image) for image in job.images]
    with torch.no_grad():
        for sample in samples:
            prepared(sample)
    write_program(convert_pt2e(prepared), samples[0], path)
    Path(f"{path}.json").write_text(files[METADATA_FILE] or "{}", encoding="utf-8")


EXECUTORCH = Format(
    "executorch",
    ".pte",
    "ExecuTorch",
    ("executorch",),
    write_executorch,
    open_executorch,
    companions=(".pte.json",),
    has_open_size=False,
    has_open_batch=False,
    quantize=quantize_executorch,
    quantize_packages=("executorch", "torchao"),
    quantized_from=".pt2",
)
