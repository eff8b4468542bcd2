"""ncnn, for phones and small boards, by way of TorchScript and pnnx."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from mmvanilla.deploy.exporting import Format, Job
from mmvanilla.deploy.runner_runtimes import open_ncnn


def write_ncnn(job: Job, path: Path) -> None:
    """Write a ``.param`` file, and its weights in a ``.param.bin`` file."""
    import pnnx

    (_, *shape), one = job.example.shape, job.example[:1]
    sizes = [f"inputshape={[1, *shape]}"]
    if job.dynamic:  # what differs between two sizes is open
        sizes.append(f"inputshape2={[1, shape[0], shape[1] + 32, shape[2] + 64]}")
    with TemporaryDirectory() as folder:
        traced = torch.jit.trace(job.exportable.module, one, check_trace=False)
        torch.jit.save(traced, f"{folder}/net.pt")
        command = [pnnx.EXEC_PATH, "net.pt", "fp16=0", *(each.replace(" ", "") for each in sizes)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode or not Path(folder, "net.ncnn.bin").is_file():
            raise RuntimeError(f"pnnx failed with {done.returncode}: {done.stderr[-200:]}")
        shutil.copy(f"{folder}/net.ncnn.param", path)
        shutil.copy(f"{folder}/net.ncnn.bin", f"{path}.bin")


NCNN = Format(
    "ncnn",
    ".param",
    "ncnn",
    ("ncnn", "pnnx"),
    write_ncnn,
    open_ncnn,
    companions=(".param.bin", ".param.json"),
    has_open_batch=False,
)
