"""Export a model to a file of any format, if it computes there what PyTorch computes."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from mmvanilla.apis.images import describe_preprocessing
from mmvanilla.apis.model import input_channels
from mmvanilla.checkpoints.writing import StrPath, appearing_together, check_writable
from mmvanilla.deploy import runner
from mmvanilla.deploy.exportable import Exportable, make_exportable
from mmvanilla.deploy.verification import (
    RunFile,
    compare_with_torch,
    compared_shapes,
    random_images,
    require_agreement,
)
from mmvanilla.version import __version__

INPUT_NAME = "input"
DEFAULT_TOLERANCE = 1e-4
#: Half precision has 11 significant bits, of which a dozen layers leave about 7.
HALF_TOLERANCE = 1e-2
#: Name of the runner's copy beside an exported file.
RUNNER_NAME = "predict.py"


class Job(NamedTuple):
    """What a format writes.

    Attributes:
        exportable: The fused model.
        example: Images to trace with, (2, C, H, W).
        dynamic: Whether the file accepts any height and width (it accepts any batch size).
        fp16: Whether to store weights in half precision.
        metadata: Entries to store in the file, by name.
    """

    exportable: Exportable
    example: Tensor
    dynamic: bool
    fp16: bool
    metadata: dict[str, str]


@dataclass(frozen=True)
class Format:
    """A file format, and how it is written and run.

    Attributes:
        name: Name on the command line.
        suffix: Suffix of the file.
        runtime: Name of the program that runs it, for messages.
        require: Function that raises an ImportError, with the remedy, if something is missing.
        write: Function that writes a job to a path, and returns the number of nodes of each type
            in the graph (empty where nothing can count them).
        open: Function that opens a file to run it on the CPU, in fp32.
        companions: Suffixes of the files that are written beside it.
        has_fp16: Whether it can store weights in half precision.
        multiple: Number of pixels of which height and width must be multiples, twice or more.
            1: any size will do.
        has_runner: Whether :mod:`mmvanilla.deploy.runner` can use the file.
    """

    name: str
    suffix: str
    runtime: str
    require: Callable[[], None]
    write: Callable[[Job, Path], dict[str, int]]
    open: Callable[[Path], RunFile]
    companions: tuple[str, ...] = ()
    has_fp16: bool = False
    has_runner: bool = False
    multiple: int = 1

    def files(self, out: Path) -> list[Path]:
        """List all files of an export to ``out``, which comes first."""
        return [out, *(out.with_suffix(suffix) for suffix in self.companions)]


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Attributes:
        path: Path of the file that was written.
        part: Exported part: ``'backbone'``, ``'classifier'`` or ``'segmenter'``.
        output_names: Names of the graph's outputs.
        dynamic: True if the file accepts other heights and widths (it accepts any batch size).
        node_counts: Number of nodes of each type in the graph; empty if the format does not tell.
        max_difference: Largest difference from PyTorch, relative to each output's maximum.
        compared_shapes: Shapes of the inputs that were compared, (N, C, H, W).
        size_bytes: Size of the file, and of those beside it that it needs, in bytes.
        runtime: Name of the program that ran the file.
        input_size: The heights and widths that it accepts, in words.
    """

    path: Path
    part: str
    output_names: tuple[str, ...]
    dynamic: bool
    node_counts: dict[str, int]
    max_difference: float
    compared_shapes: tuple[tuple[int, ...], ...]
    size_bytes: int
    runtime: str
    input_size: str


def export_model(
    model: nn.Module,
    out: str | Path,
    target: Format,
    *,
    size: tuple[int, int] = (224, 224),
    part: str | None = None,
    softmax: bool = False,
    full_size: bool = False,
    dynamic: bool = True,
    fp16: bool = False,
    tolerance: float | None = None,
    overwrite: bool = False,
    metadata: dict[str, str] | None = None,
    with_runner: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> ExportReport:
    """Fuse a model, export it, run the file, and let it appear if it agrees with PyTorch.

    The graph takes normalised images. The work of the model's data preprocessor (channel order,
    mean, std) is not in the graph, but described in the file's metadata under ``preprocessing``,
    as JSON.

    Args:
        model: A model in eval mode, which is not changed.
        out: Path of the file to write.
        target: Format to write.
        size: Height and width in pixels to export with; without ``dynamic`` the only ones.
        part: Part to export, as in :func:`mmvanilla.deploy.exportable.make_exportable`.
        softmax: Whether a classifier gives probabilities instead of logits. Default: False.
        full_size: Whether a segmenter gives logits at the size of the input instead of that of its
            head. Default: False.
        dynamic: Whether the file accepts any height and width, if the model does. Default: True.
        fp16: Whether to store weights in half precision. Inputs and outputs stay float32.
            Default: False.
        tolerance: Largest difference allowed, relative to each output's maximum. None: 1e-4, with
            ``fp16`` 1e-2.
        overwrite: Whether to replace existing files. Default: False.
        metadata: More entries for the file's metadata.
        with_runner: Whether to copy :mod:`mmvanilla.deploy.runner` beside the file, as
            :data:`RUNNER_NAME`. Default: False.
        progress: Function that is called with the name of each step.

    Raises:
        FileExistsError: A file exists and ``overwrite`` is False.
        FileNotFoundError: The folder of ``out`` does not exist.
        ImportError: Something that the format needs is not installed.
        ValueError: An option does not fit the model or the format, or a size is below 1.
        RuntimeError: The runtime disagrees with PyTorch, or cannot run the file.
    """
    out = Path(out)
    files = [*target.files(out), *runner_copies(out, with_runner)]
    check_out(out, target.suffix, overwrite, files=files)
    if min(size) < 1:
        raise ValueError(f"height and width must be at least 1, found {size[0]} and {size[1]}")
    if fp16 and not target.has_fp16:
        raise ValueError(
            f"{target.name} files are exported in fp32 alone; leave --fp16 out, and convert the "
            "loaded module with .half()"
        )
    target.require()
    progress("fusing")
    exportable = make_exportable(model, part, softmax, full_size)
    if exportable.fixed_size is not None:
        size, dynamic = exportable.fixed_size, False
    multiple = target.multiple
    if dynamic and multiple > 1 and any(side % multiple or side < 2 * multiple for side in size):
        raise ValueError(
            f"{target.name} files leave open only multiples of {multiple} pixels from "
            f"{2 * multiple} on, found {size[0]}x{size[1]}; take such a size, or --fixed-size"
        )
    in_channels = input_channels(model)
    shapes = compared_shapes(in_channels, size, dynamic, target.multiple)
    if tolerance is None:
        tolerance = HALF_TOLERANCE if fp16 else DEFAULT_TOLERANCE
    entries = {
        "mmvanilla_version": __version__,
        "part": exportable.part,
        "outputs": ",".join(exportable.output_names),
        "input_size": _input_size(size, dynamic, target.multiple),
        "precision": "fp16" if fp16 else "fp32",
        "preprocessing": json.dumps(describe_preprocessing(model)),
        **(metadata or {}),
    }
    with appearing_together(files, overwrite) as aside:
        progress("exporting")
        example = random_images((2, in_channels, *size), seed=0)
        nodes = target.write(Job(exportable, example, dynamic, fp16, entries), aside[0])
        progress("comparing")
        run = target.open(aside[0])
        difference = compare_with_torch(run, exportable.module, shapes, target.runtime)
        require_agreement(difference, tolerance, target.runtime)
        del run  # some runtimes keep the file open
        copy_runner(aside)
        progress("writing")
    return ExportReport(
        out,
        exportable.part,
        exportable.output_names,
        dynamic,
        nodes,
        difference,
        shapes,
        sum(path.stat().st_size for path in target.files(out)),
        target.runtime,
        entries["input_size"],
    )


def _input_size(size: tuple[int, int], dynamic: bool, multiple: int) -> str:
    if not dynamic:
        return f"{size[0]}x{size[1]}"
    return "any" if multiple == 1 else f"multiples of {multiple}"


def check_out(
    out: Path,
    suffix: str,
    overwrite: bool,
    inputs: Iterable[StrPath] = (),
    files: Iterable[Path] = (),
) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Args:
        out: Path of the file to write.
        suffix: Suffix that it must have.
        overwrite: Whether existing files may be replaced.
        inputs: Files that the work reads, none of which may be replaced.
        files: All files that are written, if there are more than ``out``.

    Raises:
        ValueError: The output has another suffix, or is also an input.
        FileExistsError: An output exists and ``overwrite`` is False.
        IsADirectoryError: An output is a folder.
        FileNotFoundError: The folder of the output does not exist.
        PermissionError: The folder of the output cannot be written to.
    """
    if out.suffix != suffix:
        raise ValueError(f"the output must be an {suffix} file, found {out}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent} to write {out.name} into; make it first")
    check_writable([*files] or [out], overwrite, inputs)


def runner_copies(out: Path, with_runner: bool) -> list[Path]:
    """List the runner's copy beside ``out``, if it is wanted and not there already."""
    copy = out.with_name(RUNNER_NAME)
    is_there = copy.is_file() and filecmp.cmp(copy, str(runner.__file__), shallow=False)
    return [copy] if with_runner and not is_there else []


def copy_runner(files: Iterable[Path]) -> None:
    """Write the runner's copy, if it is among these files."""
    for path in files:
        if path.name == RUNNER_NAME:
            shutil.copyfile(str(runner.__file__), path)
