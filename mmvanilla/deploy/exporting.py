"""Export a model to a file of any format, if it computes there what PyTorch computes."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmvanilla.apis.images import describe_preprocessing
from mmvanilla.apis.model import input_channels
from mmvanilla.checkpoints.writing import appearing_together, check_writable
from mmvanilla.deploy.exportable import Exportable, make_exportable, random_images
from mmvanilla.deploy.runner_runtimes import RunFile, last_line, silence_telemetry
from mmvanilla.utils.numerics import largest, relative_difference
from mmvanilla.version import __version__

INPUT_NAME = "input"
DEFAULT_TOLERANCE = 1e-4


class Job(NamedTuple):
    """What a format writes: a fused model, traced with images, (2, C, H, W), and its metadata.

    ``dynamic`` says whether the file accepts any height and width (it accepts any batch size).
    """

    exportable: Exportable
    example: Tensor
    dynamic: bool
    metadata: dict[str, str]


class QuantizeJob(NamedTuple):
    """What a format makes int8: an fp32 file, with the ranges of images, each (1, C, H, W).

    ``per_channel`` says whether each channel has a weight scale of its own, or each layer only one;
    ``keep_float`` has the names of layers to leave in fp32.
    """

    model: Path
    images: Iterable[np.ndarray]
    per_channel: bool = True
    keep_float: Sequence[str] = ()

    def check_layers(self, known: Sequence[str] = ()) -> None:
        """Raise a ValueError if a layer to leave in fp32 is not among the known ones."""
        choice = f"choose from {', '.join(known)}" if known else "leave --keep-float out"
        for name in set(self.keep_float).difference(known):
            raise ValueError(f"{self.model} has no layer {name!r} to leave in fp32; {choice}")


@dataclass(frozen=True)
class Format:
    """A file format: its name, and how it is written, run and quantised.

    ``packages`` are those that it needs, ``companions`` the suffixes of files beside it; where the
    file has no place for metadata, ``export_model`` writes a companion ``.json`` with them.
    ``has_open_size``: whether a file can accept any height and width; ``has_open_batch``: whether
    it takes several images at once (else ``open`` runs one by one). ``quantize`` makes an int8 file
    of an fp32 file, which has the same suffix unless ``quantized_from`` names another.
    """

    name: str
    suffix: str
    runtime: str
    packages: tuple[str, ...]
    write: Callable[[Job, Path], None]
    open: Callable[[Path], tuple[RunFile, dict[str, str]]]
    companions: tuple[str, ...] = ()
    has_open_size: bool = True
    has_open_batch: bool = True
    quantize: Callable[[QuantizeJob, Path], None] | None = None
    quantize_packages: tuple[str, ...] = ()
    quantized_from: str = ""

    def files(self, out: Path) -> list[Path]:
        """List all files of an export to ``out``, which comes first, or refuse its suffix."""
        if out.suffix != self.suffix:
            raise ValueError(f"the output must be an {self.suffix} file, found {out}")
        return [out, *(out.with_suffix(suffix) for suffix in self.companions)]


class ExportReport(NamedTuple):
    """A file's metadata, and its relative difference from PyTorch on inputs of these shapes."""

    metadata: dict[str, str]
    max_difference: float
    compared_shapes: list[tuple[int, ...]]


def export_model(
    model: nn.Module,
    out: str | Path,
    target: Format,
    *,
    size: tuple[int, int] = (224, 224),
    part: str | None = None,
    softmax: bool = False,
    balance: bool = True,
    dynamic: bool = True,
    tolerance: float = DEFAULT_TOLERANCE,
    overwrite: bool = False,
    metadata: dict[str, str] | None = None,
) -> ExportReport:
    """Fuse a model, export it, run the file, and let it appear if it agrees with PyTorch.

    Args:
        model: A model in eval mode, which is not changed.
        out: Path of the file to write.
        target: Format to write.
        size: Height and width in pixels to export with; without ``dynamic`` the only ones.
        part: ``'backbone'``, ``'classifier'`` or ``'segmenter'``. None: what the model is.
        softmax: Whether a classifier gives the scores of its own ``predict`` instead of logits.
        balance: Whether weights are equalised, where that changes no output. Default: True.
        dynamic: Whether the file accepts any height and width, if model and format allow it.
        tolerance: Largest difference allowed, relative to each output's maximum.
        overwrite: Whether to replace existing files. Default: False.
        metadata: More entries for the file's metadata.

    Raises:
        FileExistsError: A file exists and ``overwrite`` is False.
        ImportError: Something that the format needs is not installed, or torch is too old.
        ValueError: An option does not fit the model or the format, or the model not the sizes.
        RuntimeError: The model cannot be fused or exported, or the runtime disagrees with PyTorch.
    """
    files = target.files(Path(out))
    check_writable(files, overwrite)
    if min(size) < 1:
        raise ValueError(f"height and width must be at least 1, found {size[0]} and {size[1]}")
    require_packages(*target.packages)
    exportable = make_exportable(model, part, softmax, balance)
    height, width = size = exportable.fixed_size or size
    dynamic = dynamic and target.has_open_size and exportable.fixed_size is None
    channels = input_channels(model)
    shapes: list[tuple[int, ...]] = [(1, channels, *size), (3, channels, *size)]
    if dynamic:
        shapes.append((2, channels, height + 32, max(32, width - 32)))
        shapes.append((1, channels, height + 19, width + 45))
    entries = {
        "mmvanilla_version": __version__,
        "part": exportable.part,
        "outputs": ",".join(exportable.output_names),
        "input_size": "any" if dynamic else f"{height}x{width}",
        "equalised": exportable.equalised,
        "preprocessing": json.dumps(describe_preprocessing(model)),
        **(metadata or {}),
    }
    job = Job(exportable, random_images((2, channels, *size), seed=0), dynamic, entries)
    with appearing_together(files, overwrite) as aside:
        with _quiet(target):
            target.write(job, aside[0])
            for path in aside[1:]:
                if path.suffix == ".json":
                    path.write_text(json.dumps(entries), encoding="utf-8")
            run = target.open(aside[0])[0]
        difference = compare_with_torch(run, exportable.reference, shapes)
        if not difference <= tolerance:  # NaN is a disagreement, too
            raise RuntimeError(
                f"{target.runtime}'s outputs differ from PyTorch's by {difference:.2g} of their "
                f"maximum, more than {tolerance:g}; nothing was written (NaN comes from weights)"
            )
    return ExportReport(entries, difference, shapes)


@contextlib.contextmanager
def _quiet(target: Format) -> Iterator[None]:
    """Let exporters neither warn nor print, and give their errors, of no common class, one line."""
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of shapes that Python looks at: the comparison decides
        try:
            yield
        except OSError:  # for example, the disk is full
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            message = f"this model cannot be a file for {target.runtime}: {reason}"
            raise RuntimeError(message) from error


@torch.no_grad()
def compare_with_torch(
    run: RunFile, reference: Callable[[Tensor], Any], shapes: Sequence[tuple[int, ...]]
) -> float:
    """Return the largest relative difference of a file from a model on random inputs; may be NaN.

    Raises:
        RuntimeError: The runtime cannot run one of the inputs.
        ValueError: The model cannot; or the file gives another number of outputs, or other shapes.
    """
    differences = []
    for seed, shape in enumerate(shapes):
        images = random_images(shape, seed)
        try:
            expected = reference(images)
        except Exception as error:  # whatever a model of any origin raises
            text = f"the model takes no images of {shape[2]}x{shape[3]} pixels ({error}); give its "
            text += "size by --shape, and --fixed-size if it is the only one"
            raise ValueError(text) from error
        try:
            found = run(images.numpy())
        except Exception as error:  # the runtimes' errors have no common class
            raise RuntimeError(f"an input of {shape} cannot be run: {last_line(error)}") from error
        outputs = [expected] if isinstance(expected, Tensor) else expected
        differences += [relative_difference(*pair) for pair in zip(outputs, found, strict=True)]
    return largest(differences)


def require_packages(*names: str) -> None:
    """Refuse to go on without these packages (pip knows them as Python does) and torch 2.6."""
    silence_telemetry()
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise ImportError(f"export needs torch 2.6 or newer, found {torch.__version__}")
    missing = " ".join(name for name in names if find_spec(name) is None)
    if missing:
        raise ImportError(f"{missing} is not installed; run `pip install {missing}`")
